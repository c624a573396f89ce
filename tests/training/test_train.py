from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from gax_batch import tree
from gax_batch.errors import FatalError
from gax_batch.labels import Labels
from gax_batch.models import bayesian, svr
from training import checkpoint, regression, train
from training.data import Galaxies
from training.images import WINDOW_SIDE
from training.recipe import RECIPES, Recipe, Stage

SHORT = Recipe((Stage(32, 2), Stage(48, 2)), 1e-3, voted=6, facts=2)


@pytest.fixture(scope="module")
def galaxies():
    """Bright ones are smooth, faint ones are not; of the last four only the class is known."""
    rng = np.random.default_rng(0)
    bright = np.arange(12) % 2
    windows = rng.integers(0, 40, (12, WINDOW_SIDE, WINDOW_SIDE, 3)) + 150 * bright[:, None, None, None]
    weighted = np.ones((12, tree.N_ANSWERS), np.float32)
    weighted[:, 0] = np.where(bright, 20, 1)
    reached = np.full((12, tree.N_QUESTIONS), 40, np.float32)
    reached[8:] = 0
    classes = np.where(np.arange(12) < 8, -1, np.where(bright, 0, 4)).astype(np.int8)
    labels = Labels([str(i) for i in range(12)], tree.conditional(weighted), reached, classes)
    return Galaxies(labels, windows.astype(np.uint8))


@pytest.fixture
def batches():
    return train.Batches(np.arange(8), np.arange(8, 12), 7)


def weights(model):
    return np.concatenate([w.ravel() for w in model.get_weights()])


def quiet(_line):
    pass


def trained(galaxies, batches, recipe=SHORT, **options):
    tf.random.set_seed(7)
    model = svr.build(7)
    train.fit(model, galaxies, batches, recipe, say=quiet, **options)
    return model


def test_every_galaxy_is_seen_once_an_epoch(batches):
    recipe = replace(SHORT, voted=4, facts=2)
    for epoch in range(3):
        rows = np.concatenate([batches.rows(2 * epoch + i, recipe) for i in range(2)])
        assert sorted(rows) == list(range(12))
    assert np.array_equal(batches.rows(5, recipe), batches.rows(5, recipe))
    assert len(train.Batches(np.arange(8), np.empty(0, np.intp), 7).rows(0, recipe)) == 4


def test_training_is_reproducible(galaxies, batches):
    first, again = (trained(galaxies, batches) for _ in range(2))
    np.testing.assert_array_equal(weights(first), weights(again))


def test_a_killed_training_goes_on_to_the_same_weights(galaxies, batches, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SAVE_SECONDS", 0.0)
    whole = trained(galaxies, batches)

    class Killed(Exception):
        pass

    state, save = tmp_path / "svr.state", checkpoint.save

    def kill_after_three(path, arrays):
        save(path, arrays)
        if arrays["step"][0] == 3:
            raise Killed

    monkeypatch.setattr(checkpoint, "save", kill_after_three)
    with pytest.raises(Killed):
        trained(galaxies, batches, state=state)
    monkeypatch.setattr(checkpoint, "save", save)
    resumed = trained(galaxies, batches, state=state)
    np.testing.assert_allclose(weights(resumed), weights(whole), atol=1e-6)


def test_a_damaged_checkpoint_is_done_again(tmp_path):
    path = tmp_path / "x.safetensors"
    assert checkpoint.load(path) is None
    checkpoint.save(path, {"a": np.arange(3)})
    assert list(checkpoint.load(path)["a"]) == [0, 1, 2]
    path.write_bytes(path.read_bytes()[:20])
    assert checkpoint.load(path) is None


def test_a_diverging_training_stops_with_the_step_and_advice(galaxies, batches):
    broken = Galaxies(replace(galaxies.labels, reached=galaxies.labels.reached * np.nan), galaxies.windows)
    with pytest.raises(FatalError, match=r"svr: the loss is nan at step 1 of 4.*learning rate half"):
        trained(broken, batches)


def test_the_bayesian_means_start_at_the_trained_trunk(galaxies, batches):
    trunk = trained(galaxies, batches)
    for name in ("bayesian", "classic"):
        model = train.BUILDERS[name](7)
        train.start_from(model, trunk)
        if name == "bayesian":
            start = model.get_layer("block_1").kernel_posterior.distribution.loc
        else:
            start = model.get_layer("convolution_1").get_weights()[0]
        np.testing.assert_array_equal(start, trunk.get_layer("convolution_1").get_weights()[0])


def test_a_network_starts_as_the_trunks_function(galaxies, batches):
    trunk = trained(galaxies, batches)
    features = np.random.default_rng(3).uniform(-0.3, 3, (5, 256)).astype(np.float32)
    expected = trunk.get_layer("logits")(features)
    model = train.BUILDERS["classic"](7)
    train.start_from(model, trunk)
    found = model.get_layer("logits")(model.get_layer("hidden")(features))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    arrays = bayesian.export_weights(bayesian_start(trunk))
    hidden = np.maximum(features @ arrays["hidden/mean"] + arrays["hidden/bias"], 0)
    np.testing.assert_allclose(hidden @ arrays["logits/mean"] + arrays["logits/bias"], expected, atol=1e-4)


def bayesian_start(trunk):
    model = train.BUILDERS["bayesian"](7)
    train.start_from(model, trunk)
    return model


def test_training_lowers_the_loss_and_keeps_scales_positive(galaxies, batches, tmp_path):
    lines = []
    model = train.BUILDERS["classic"](7)
    recipe = Recipe((Stage(32, 80),), 3e-3, voted=8, facts=4)
    train.fit(model, galaxies, batches, recipe, logs=tmp_path, say=lines.append)
    assert list(tmp_path.glob("events.*"))
    losses = [float(line.split("votes ")[1].split(",")[0]) for line in lines]
    assert losses[-1] < 0.95 * losses[0]
    assert "s left" in lines[0]
    assert all(np.all(model.get_layer(f"normalization_{i}").gamma >= 0) for i in range(3))


def test_a_recipe_of_deviations_learns_them_and_nothing_else(galaxies, batches, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SAVE_SECONDS", 0.0)
    model = bayesian_start(trained(galaxies, batches))
    before = bayesian.export_weights(model)
    recipe = Recipe((Stage(32, 10),), 0.05, voted=6, facts=2, temperature=100.0, deviations=True)
    train.fit(model, galaxies, batches, recipe, state=tmp_path / "state", say=quiet)
    after = bayesian.export_weights(model)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {f"block_{i}/deviation" for i in range(3)}
    # So hot that the prior, which is wider than the first posterior, is all that counts.
    assert all(np.all(after[name] > before[name]) for name in changed)
    resumed = bayesian.build(1)
    saved = checkpoint.load(tmp_path / "state")
    variables = bayesian.deviations(resumed)
    assert checkpoint.restore(resumed, train.optimizer_of(recipe), variables, saved) == 10
    np.testing.assert_array_equal(
        bayesian.export_weights(resumed)["block_2/deviation"], after["block_2/deviation"]
    )


def test_recipes_can_be_scaled():
    half = RECIPES["svr"].scaled(0.5)
    assert half.steps == pytest.approx(RECIPES["svr"].steps / 2, abs=3)
    assert RECIPES["svr"].scaled(0.0001).steps == len(half.stages)


def test_regressions_learn_from_features(monkeypatch):
    monkeypatch.setattr(regression, "COSTS", (0.001, 1.0))
    monkeypatch.setattr(regression, "GAMMAS", regression.GAMMAS[1:2])
    rng = np.random.default_rng(1)
    causes = rng.normal(0, 1, (80, 3))
    inputs = (causes @ rng.normal(0, 1, (3, 256))).astype(np.float32)
    hidden = 1 / (1 + np.exp(-2 * causes[:, :1]))
    raw = np.ones((80, 37))
    raw[:, :1] = 6 * hidden
    fractions = tree.cumulative(tree.conditional(raw)).astype(np.float32)
    arrays, record = regression.fit(inputs, fractions)
    assert arrays["svr/dual"].shape[1] == 37
    assert record["C"] == 1.0
    assert record["support_vectors"] == len(arrays["svr/support"])
    predicted, _ = svr.Regressions(arrays)(tf.constant(inputs))
    assert np.corrcoef(predicted.numpy()[:, 0], fractions[:, 0])[0, 1] > 0.8


def test_regressions_of_a_large_training_set_are_bounded(monkeypatch):
    monkeypatch.setattr(regression, "COSTS", (1.0,))
    monkeypatch.setattr(regression, "GAMMAS", regression.GAMMAS[1:2])
    monkeypatch.setattr(regression, "MOST_GALAXIES", 20)
    rng = np.random.default_rng(1)
    inputs = rng.normal(0, 1, (80, 256)).astype(np.float32)
    fractions = tree.cumulative(tree.conditional(rng.uniform(1, 9, (80, 37)))).astype(np.float32)
    arrays, record = regression.fit(inputs, fractions, np.arange(80) % 2 == 0)
    assert record["support_vectors"] == len(arrays["svr/support"]) <= 20


def test_facts_teach_the_regressions_what_the_network_believes(galaxies):
    rng = np.random.default_rng(2)
    model = svr.build(1)
    inputs = rng.normal(0, 1, (12, 256)).astype(np.float32)
    labels = galaxies.labels
    targets = regression.targets(inputs, model, labels)
    np.testing.assert_array_equal(targets[labels.voted], labels.cumulative[labels.voted])
    assert tree.inconsistency(targets[~labels.voted]) < 1e-5
