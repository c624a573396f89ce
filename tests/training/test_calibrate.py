import numpy as np
import pytest

from gax_batch import tree, uncertainty
from training import calibrate, evaluate
from training.data import Galaxies


def galaxies(count=300, seed=0):
    rng = np.random.default_rng(seed)
    raw = rng.gamma(0.8, size=(count, tree.N_ANSWERS)) + 1e-3
    fractions = tree.conditional(raw).astype(np.float32)
    cumulative = tree.cumulative(fractions)
    reached = np.stack(
        [np.full(count, 40.0) if q.parent is None else 40 * cumulative[:, q.parent] for q in tree.QUESTIONS],
        axis=1,
    )
    windows = np.zeros((count, 1, 1, 3), np.uint8)
    return Galaxies([str(i) for i in range(count)], windows, fractions, reached.astype(np.float32))


def predictions(truth, noise, seed):
    rng = np.random.default_rng(seed)
    logits = np.log(truth.fractions) + rng.normal(0, noise, truth.fractions.shape)
    return tree.cumulative(tree.conditional(np.exp(logits))).astype(np.float32)


@pytest.fixture(scope="module")
def truth():
    return galaxies()


@pytest.fixture(scope="module")
def models(truth):
    return {
        "bayesian": predictions(truth, 0.4, 1),
        "classic": predictions(truth, 2.5, 2),
        "svr": predictions(truth, 0.4, 3),
    }


def test_weights_are_shares_and_prefer_the_better_model(truth, models):
    weights = calibrate.fit_blend(truth, models)
    table = np.array([weights[name] for name in sorted(models)])
    np.testing.assert_allclose(table.sum(axis=0), 1, atol=1e-4)
    assert np.all(table >= 0)
    assert np.all(np.array(weights["classic"]) < np.array(weights["bayesian"]))
    assert np.mean(weights["bayesian"]) == pytest.approx(np.mean(weights["svr"]), abs=0.1)


def test_the_blend_beats_its_models(truth, models):
    mixed = uncertainty.blend(models, calibrate.fit_blend(truth, models))
    best = min(evaluate.rmse(p, truth.cumulative) for p in models.values())
    assert evaluate.rmse(mixed, truth.cumulative) < best


def test_calibration_holds_every_choice_of_models_and_covers(truth, models):
    closeness = np.linspace(0, 1, len(truth), dtype=np.float32)
    draws = np.stack([models["bayesian"], predictions(truth, 0.4, 5)])
    models = {**models, "bayesian": draws.mean(axis=0)}
    values = calibrate.calibrate(truth, {**models, "bayesian": draws, "closeness": closeness})
    std = draws.std(axis=0)
    assert len(values["combinations"]) == 7
    assert np.mean(1 - closeness > values["ood_threshold"]) == pytest.approx(0.01, abs=0.005)
    for chosen in calibrate.combinations():
        usable = uncertainty.Calibration.of_bundle(values, chosen)
        prob = uncertainty.blend({name: models[name] for name in chosen}, usable.weights)
        spread = std if "bayesian" in chosen else np.full_like(std, np.nan)
        lo, hi = uncertainty.interval(
            prob, spread, usable.quantiles, n_votes=usable.n_votes, floor=usable.floor
        )
        inside = (truth.cumulative >= lo - 1e-5) & (truth.cumulative <= hi + 1e-5)
        assert inside.mean() == pytest.approx(0.9, abs=0.02)


def test_the_neutral_calibration_serves_every_choice():
    for chosen in calibrate.combinations():
        usable = uncertainty.Calibration.of_bundle(calibrate.neutral(), chosen)
        assert usable.models == chosen


def test_numbers_of_a_perfect_prediction(truth):
    assert evaluate.rmse(truth.cumulative, truth.cumulative) == 0
    perfect = evaluate.votes_nll(truth.cumulative, truth)
    assert perfect < evaluate.votes_nll(predictions(truth, 1.0, 4), truth)
    assert 0.01 < evaluate.vote_noise(truth) < 0.08
