import numpy as np
import pytest
from labeled_galaxies import random_fractions

from gax_batch import gz2
from gax_batch.errors import UsageError
from gax_batch.models import blending
from gax_batch.models.blending import Blend

MEAN = Blend.of({"bayesian": np.linspace(0, 1, 11), "svr": np.linspace(1, 0, 11)})


def scaled(exponent, offset):
    return Blend(MEAN.weights, np.full(11, exponent, np.float32), np.full(37, offset, np.float32))


def test_a_blend_is_consistent_and_between_its_models():
    predictions = {"bayesian": random_fractions(30, seed=1), "svr": random_fractions(30, seed=2)}
    mixed = MEAN(predictions)
    assert gz2.inconsistency(mixed) < 1e-6
    assert mixed.dtype == np.float32
    # The first question is the SVR's alone.
    np.testing.assert_allclose(mixed[:, :3], predictions["svr"][:, :3], atol=1e-6)


def test_a_blend_of_one_model_is_that_model():
    prediction = random_fractions(10)
    mixed = Blend.of({"classic": [1.0] * 11})({"classic": prediction})
    np.testing.assert_allclose(mixed, prediction, atol=1e-6)


def test_a_plain_mean_keeps_its_bits():
    prediction = random_fractions(50, seed=4)
    prediction[:, 3:5] = [0, 0.5]
    mixed = Blend.of({"classic": [1.0] * 11})({"classic": prediction})
    expected = gz2.cumulative(gz2.conditional(gz2.conditional(prediction)))
    np.testing.assert_array_equal(mixed, np.clip(expected, 0, 1))


def test_draws_blend_with_a_single_prediction():
    draws, single = random_fractions(4, 20, seed=1), random_fractions(20, seed=2)
    mixed = scaled(1.2, 0.0)({"bayesian": draws, "svr": single})
    assert mixed.shape == (4, 20, 37)
    one = scaled(1.2, 0.0)({"bayesian": draws[2], "svr": single})
    np.testing.assert_allclose(mixed[2], one, atol=1e-6)


def test_scaling_is_the_softmax_of_scaled_logarithms():
    conditional = np.asarray(gz2.conditional(random_fractions(50, seed=3)))
    exponent = np.linspace(0.5, 2, 11).astype(np.float32)
    offset = np.linspace(-1, 1, 37).astype(np.float32)
    found = blending.scale(conditional, exponent, offset)
    for index, question in enumerate(gz2.QUESTIONS):
        odds = conditional[:, question.columns] ** exponent[index] * np.exp(offset[question.columns])
        np.testing.assert_allclose(
            found[:, question.columns], odds / odds.sum(axis=1, keepdims=True), rtol=1e-3, atol=1e-6
        )


@pytest.mark.parametrize(("exponent", "sharper"), [(1.5, True), (0.7, False)])
def test_an_exponent_above_one_sharpens(exponent, sharper):
    predictions = {"bayesian": random_fractions(40, seed=1), "svr": random_fractions(40, seed=2)}
    before, after = (blend(predictions)[:, 13:15].max(axis=1) for blend in (MEAN, scaled(exponent, 0)))
    assert np.all((after > before) == sharper)


def test_it_is_kept_in_json():
    blend = Blend(MEAN.weights, np.linspace(0.9, 1.3, 11), np.linspace(-0.5, 0.5, 37))
    found = Blend.of_json(blend.as_json())
    np.testing.assert_allclose(found.exponent, blend.exponent, atol=1e-4)
    np.testing.assert_allclose(found.offset, blend.offset, atol=1e-4)
    np.testing.assert_allclose(found.weights["svr"], blend.weights["svr"], atol=1e-5)


def test_a_bundle_without_scaling_has_the_plain_mean():
    found = Blend.of_json({"blend": MEAN.as_json()["blend"]})
    assert np.all(found.exponent == 1)
    assert np.all(found.offset == 0)


@pytest.mark.parametrize("name", ["exponent", "offset"])
@pytest.mark.parametrize("wrong", [lambda row: row[:-1], lambda row: [*row[:-1], float("nan")]])
def test_a_bundle_that_lost_numbers_is_refused(name, wrong):
    values = MEAN.as_json()
    values[name] = wrong(values[name])
    with pytest.raises(UsageError, match=name):
        Blend.of_json(values)
