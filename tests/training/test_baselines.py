import numpy as np
import pytest

from gax_batch import tree
from gax_batch.labels import Labels, votes
from gax_batch.models import svr
from training import baselines, chain, checkpoint
from training.data import FOLDS, Galaxies
from training.recipe import Recipe, Stage

COUNT = 60
SHORT = Recipe((Stage(32, 3),), 1e-3, voted=8, facts=2)


@pytest.fixture(scope="module")
def galaxies():
    """Bright ones are smooth, faint ones are not; of the last ten only the class is known."""
    rng = np.random.default_rng(0)
    bright = np.arange(COUNT) % 2
    raw = rng.gamma(5, size=(COUNT, tree.N_ANSWERS)) / 5
    raw[:, 0] = np.where(bright, 20, 0.1)
    fractions, reached = votes(raw, np.full(COUNT, 40.0))
    reached[50:] = 0
    classes = np.where(np.arange(COUNT) < 50, -1, np.where(bright, 0, 4)).astype(np.int8)
    windows = rng.integers(0, 40, (COUNT, 106, 106, 3)) + 150 * bright[:, None, None, None]
    labels = Labels([str(i) for i in range(COUNT)], fractions, reached, classes)
    return Galaxies(labels, windows.astype(np.uint8))


def test_what_was_not_trained_is_left_out_and_neighbors_beat_the_mean(galaxies, tmp_path):
    found = baselines.predictions(galaxies, tmp_path)
    assert set(found) == {"mean of training", "nearest neighbors, pixels"}
    truth, voted = galaxies.labels.cumulative, galaxies.labels.voted
    errors = {name: np.mean((values - truth)[voted] ** 2) for name, values in found.items()}
    assert errors["nearest neighbors, pixels"] < 0.5 * errors["mean of training"]


def test_the_literal_network_and_the_ensemble_predict_what_was_held_out(galaxies, tmp_path, monkeypatch):
    monkeypatch.setattr(baselines, "LITERAL", SHORT)
    monkeypatch.setattr(chain, "RECIPES", {"svr": SHORT})
    monkeypatch.setattr(baselines, "MEMBERS", 3)
    folder = tmp_path / "fold-1"
    folder.mkdir()
    checkpoint.save(tmp_path / "pretrained.safetensors", chain.weights(svr.build(3)))
    held_out = galaxies.folds == 1
    given = np.full((held_out.sum(), 37), 0.5, np.float32)
    checkpoint.save(folder / "predictions.safetensors", {"classic": given})
    for train in (baselines.train_literal, baselines.train_ensemble):
        train(galaxies, 1, folder, 7, 0.05)
    assert 0 < held_out.sum() < COUNT / FOLDS * 2
    members = baselines.ensemble(galaxies, tmp_path)
    assert np.array_equal(np.isfinite(members).all(axis=2), np.stack([held_out] * 3))
    # The first is the classic CNN; the others, in another order, are consistent with the tree and differ.
    assert np.array_equal(members[0, held_out], given)
    assert tree.inconsistency(members[1, held_out]) < 1e-5
    assert np.abs(members[1] - members[2])[held_out].max() > 1e-3
    found = baselines.predictions(galaxies, tmp_path)
    np.testing.assert_allclose(
        found["deep ensemble of five classic CNNs"][held_out], members.mean(axis=0)[held_out]
    )
    assert np.all((found["literal classic CNN"][held_out] > 0) & (found["literal classic CNN"][held_out] < 1))


def test_members_that_are_there_are_not_trained_again(galaxies, tmp_path, monkeypatch):
    monkeypatch.setattr(baselines.train, "fit", None)
    for k in range(1, baselines.MEMBERS):
        checkpoint.save(tmp_path / f"member-{k}.safetensors", {"predictions": np.zeros((1, 37), np.float32)})
    baselines.train_ensemble(galaxies, 1, tmp_path, 7, 1.0)
