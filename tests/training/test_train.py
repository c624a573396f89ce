import re
from dataclasses import replace

import numpy as np
import pytest
import tf_keras as keras
from labeled_galaxies import bright_and_faint, unlabeled

from gax_batch.errors import FatalError
from gax_batch.models import bayesian, classic, svr
from training import checkpoint, train
from training.data import CALIBRATE, TRAIN
from training.recipe import Recipe, TrainingStage
from training.targets import targets_of
from training.train import Batches

SHORT = Recipe((TrainingStage(16, 2), TrainingStage(24, 2)), 1e-3, (2, 2, 1, 1, 1), averaging=0.1)


@pytest.fixture(scope="module")
def galaxies():
    return bright_and_faint()


def weights(model):
    return np.concatenate([w.ravel() for w in model.get_weights()])


def quiet(_line):
    pass


def trained(galaxies, recipe=SHORT, network=svr, **options):
    # Keras draws the seeds of its initializers from Python's generator.
    keras.utils.set_random_seed(7)
    model = network.build(7)
    batches = Batches.of(galaxies, 7)
    train.fit(model, galaxies, targets_of(galaxies), batches, recipe, say=quiet, **options)
    return model


def test_kinds_are_what_is_known_of_the_galaxies_that_train(galaxies):
    kinds = Batches.of(galaxies, 7).kinds
    assert [kind.tolist() for kind in kinds] == [[0, 1], [4, 5], [8, 9, 10, 11], [12, 14], [13, 15]]


def test_no_galaxy_of_another_sample_trains():
    galaxies = bright_and_faint()
    held = replace(galaxies, sample=np.where(np.arange(16) % 2 == 0, TRAIN, CALIBRATE).astype(np.int8))
    assert np.concatenate(Batches.of(held, 7).kinds).tolist() == [0, 2, 4, 6, 8, 10, 12, 14]


def test_weighted_votes_alone_and_the_fact_of_no_class_are_of_the_last_kind():
    weighted = np.full((3, 37), np.nan, np.float32)
    weighted[0] = 0.5
    galaxies = unlabeled(3, weighted=weighted, classes=np.array([-1, 5, 2], np.int8))
    assert [kind.tolist() for kind in Batches.of(galaxies, 7).kinds] == [[], [], [], [2], [0, 1]]


def test_a_batch_has_its_number_of_each_kind_and_none_of_a_kind_without_galaxies():
    kinds = (np.arange(5), np.arange(5, 7), np.empty(0, np.intp), np.arange(7, 20), np.arange(20, 21))
    rows = Batches(kinds, 7).rows(3, (2, 3, 4, 5, 6))
    counts = [np.isin(rows, kind).sum() for kind in kinds]
    assert counts == [2, 3, 0, 5, 6]


def test_every_galaxy_of_a_kind_is_seen_once_an_epoch_in_another_order():
    kinds = (np.arange(6), np.arange(6, 16), np.arange(16, 20), np.arange(20, 24), np.arange(24, 27))
    batches = Batches(kinds, 7)
    counts = (4, 5, 2, 4, 3)
    steps = [batches.rows(step, counts) for step in range(12)]
    orders = set()
    for kind in kinds:
        seen = np.concatenate([rows[np.isin(rows, kind)] for rows in steps])
        for epoch in range(len(seen) // len(kind)):
            part = seen[epoch * len(kind) : (epoch + 1) * len(kind)]
            assert sorted(part) == kind.tolist()
            orders.add(tuple(part))
    assert len(orders) > 15


def test_the_order_is_a_function_of_seed_and_step():
    kinds = (np.arange(30),) * 5
    first, again, other = Batches(kinds, 7), Batches(kinds, 7), Batches(kinds, 8)
    counts = (3,) * 5
    np.testing.assert_array_equal(first.rows(9, counts), again.rows(9, counts))
    assert not np.array_equal(first.rows(9, counts), other.rows(9, counts))
    parts = first.rows(9, counts).reshape(5, 3)
    assert len({tuple(part) for part in parts}) > 1, "kinds have orders of their own"


@pytest.fixture(scope="module")
def whole(galaxies, tmp_path_factory):
    """A training that was not interrupted, and what it saved after each step."""
    states, save = [], checkpoint.save

    def remember(path, arrays):
        states.append({name: np.copy(values) for name, values in arrays.items()})
        save(path, arrays)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "SAVE_SECONDS", 0.0)
        patch.setattr(checkpoint, "save", remember)
        model = trained(galaxies, state=tmp_path_factory.mktemp("whole") / "svr.state")
    return weights(model), states


def test_a_killed_training_ends_at_the_same_weights(galaxies, whole, tmp_path):
    """What it leaves is the state of the last save: here that of step 3 of 4."""
    expected, states = whole
    checkpoint.save(tmp_path / "svr.state", states[2])
    lines = []
    model = svr.build(1)
    targets, batches = targets_of(galaxies), Batches.of(galaxies, 7)
    train.fit(model, galaxies, targets, batches, SHORT, state=tmp_path / "svr.state", say=lines.append)
    assert re.findall(r"\d+", lines[0]) == ["3", "4"]
    np.testing.assert_allclose(weights(model), expected, atol=1e-6)


def test_weights_are_an_average_over_the_steps_that_begins_short(whole):
    """After n steps it keeps n / (n + 20) of what it was, and `averaging` at most."""
    expected, states = whole
    average = svr.build(7).get_weights()[0]
    for step, state in enumerate(states, 1):
        keep = min(SHORT.averaging, step / (step + 20))
        average = keep * average + (1 - keep) * state["model/0000"]
        np.testing.assert_allclose(state["average/0000"], average, atol=1e-6)
    np.testing.assert_array_equal(expected[: average.size], states[-1]["average/0000"].ravel())
    assert not np.array_equal(states[-1]["model/0000"], states[-1]["average/0000"])


def test_training_lowers_the_loss_and_keeps_scales_positive(galaxies, tmp_path):
    lines = []
    model = classic.build(7)
    recipe = Recipe((TrainingStage(32, 60),), 3e-3, (2, 2, 2, 2, 2), averaging=0.5)
    targets, batches = targets_of(galaxies), Batches.of(galaxies, 7)
    previous, train.REPORT_STEPS = train.REPORT_STEPS, 20
    try:
        train.fit(model, galaxies, targets, batches, recipe, logs=tmp_path, say=lines.append)
    finally:
        train.REPORT_STEPS = previous
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in lines]
    assert len(losses) == 3
    assert losses[-1] < 0.85 * losses[0]
    assert list(tmp_path.glob("events.*"))
    assert all(np.all(model.get_layer(f"normalization_{i}").gamma >= 0) for i in range(3))


def test_a_diverging_training_stops_with_the_step(galaxies):
    targets = targets_of(galaxies)
    targets["reached"] = targets["reached"] * np.float32(np.nan)
    with pytest.raises(FatalError, match=r"\b1\b.*\b4\b"):
        train.fit(svr.build(7), galaxies, targets, Batches.of(galaxies, 7), SHORT, say=quiet)


def test_a_recipe_of_deviations_learns_them_and_nothing_else(galaxies, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SAVE_SECONDS", 0.0)
    recipe = Recipe(
        (TrainingStage(16, 8),), 0.05, (2, 2, 1, 1, 1), averaging=0.0, temperature=1e3, deviations=True
    )
    before = bayesian.export_weights(bayesian.build(7))
    model = trained(galaxies, recipe, bayesian, state=tmp_path / "state")
    after = bayesian.export_weights(model)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {f"block_{i}/deviation" for i in range(3)}
    # So hot that the prior, which is wider than the first posterior, is all that counts.
    assert all(np.all(after[name] > before[name]) for name in changed)
    saved = checkpoint.load(tmp_path / "state")
    assert saved["step"][0] == 8


def test_settled_statistics_are_those_of_the_images(galaxies):
    model = svr.build(3)
    images = galaxies.cutouts(np.arange(11))
    train.settle_statistics(model, images, batch=4)
    first = keras.Model(model.input, model.get_layer("convolution_0").output)
    batches = [first(images[i : i + 4].astype(np.float32) / 255).numpy() for i in (0, 4)]
    layer = model.get_layer("normalization_0")
    means = np.mean([b.mean(axis=(0, 1, 2)) for b in batches], axis=0)
    variances = np.mean([b.var(axis=(0, 1, 2)) for b in batches], axis=0)
    np.testing.assert_allclose(layer.moving_mean, means, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, variances, rtol=1e-2, atol=1e-6)
    last = weights(model)
    train.settle_statistics(model, images, batch=4)
    np.testing.assert_allclose(weights(model), last, atol=1e-5)


def test_settled_networks_see_one_batch_as_training_does(galaxies):
    """All layers' statistics, not only the first one's."""
    model = svr.build(3)
    images = galaxies.cutouts(np.arange(8))
    train.settle_statistics(model, images, batch=8)
    pixels = images.astype(np.float32) / 255
    expected, found = (model(pixels, training=flag).numpy() for flag in (True, False))
    np.testing.assert_allclose(found, expected, rtol=0.03, atol=0.03)
