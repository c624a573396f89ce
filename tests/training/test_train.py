from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from gax_batch import tree
from gax_batch.models import svr
from training import regression, train
from training.data import WINDOW_SIDE, Galaxies


@pytest.fixture(scope="module")
def galaxies():
    """Bright ones are smooth, faint ones are not."""
    rng = np.random.default_rng(0)
    bright = np.arange(12) % 2
    windows = rng.integers(0, 40, (12, WINDOW_SIDE, WINDOW_SIDE, 3)) + 150 * bright[:, None, None, None]
    weighted = np.ones((12, tree.N_ANSWERS), np.float32)
    weighted[:, 0] = np.where(bright, 20, 1)
    reached = np.full((12, tree.N_QUESTIONS), 40, np.float32)
    return Galaxies(
        [str(i) for i in range(12)], windows.astype(np.uint8), tree.conditional(weighted), reached
    )


def weights(model):
    return np.concatenate([w.ravel() for w in model.get_weights()])


def test_training_is_reproducible_and_its_start_carries_over(galaxies):
    recipe = train.Recipe(epochs=1, learning_rate=1e-3, batch=6)
    first, again = (train.train_svr(galaxies, 7, recipe) for _ in range(2))
    np.testing.assert_array_equal(weights(first), weights(again))
    still = replace(recipe, learning_rate=0.0, temperature=0.1)
    bayesian = train.train_bayesian(galaxies, 7, first, still)
    np.testing.assert_allclose(
        bayesian.get_layer("block_1").kernel_posterior.distribution.loc,
        first.get_layer("convolution_1").get_weights()[0],
        atol=1e-6,
    )


def test_training_lowers_the_loss_and_keeps_scales_positive(galaxies, capsys):
    model = train.train_classic(galaxies, 7, train.Recipe(epochs=6, learning_rate=3e-3, batch=12))
    losses = [float(line.split("nll ")[1].split(",")[0]) for line in capsys.readouterr().out.splitlines()]
    assert losses[-1] < 0.9 * losses[0]
    assert all(np.all(model.get_layer(f"normalization_{i}").gamma >= 0) for i in range(3))


def test_regressions_learn_from_features(monkeypatch):
    monkeypatch.setattr(regression, "COSTS", (0.001, 1.0))
    for name in ("GAMMAS", "TUBES"):
        monkeypatch.setattr(regression, name, getattr(regression, name)[1:2])
    rng = np.random.default_rng(1)
    inputs = rng.normal(0, 1, (60, 256)).astype(np.float32)
    hidden = 1 / (1 + np.exp(-2 * inputs[:, :1]))
    fractions = np.repeat(hidden, 37, axis=1).astype(np.float32) * 0.5
    arrays, record = regression.fit(inputs, fractions)
    assert arrays["svr/dual"].shape[1] == 37
    assert record["C"] == 1.0
    predicted, _ = svr.regress(tf.constant(inputs), arrays)
    assert np.corrcoef(predicted.numpy()[:, 0], fractions[:, 0])[0, 1] > 0.8
