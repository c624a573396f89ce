import json
from dataclasses import replace

import pytest
from labeled_galaxies import unlabeled

from gax_batch.errors import UsageError
from training import assemble, build, data, networks, recipe


def settle(folder, digest="abc", seed=7, effort=1.0):
    build.same_training(folder, digest, seed, effort)


def test_the_same_training_goes_on(tmp_path):
    settle(tmp_path)
    settle(tmp_path)
    assert json.loads((tmp_path / "settings.json").read_text())["seed"] == 7


@pytest.mark.parametrize("other", [{"digest": "abd"}, {"seed": 8}, {"effort": 0.5}])
def test_other_galaxies_another_seed_or_effort_are_refused(tmp_path, other):
    settle(tmp_path)
    before = (tmp_path / "settings.json").read_text()
    with pytest.raises(UsageError, match=str(tmp_path)):
        settle(tmp_path, **other)
    assert (tmp_path / "settings.json").read_text() == before


@pytest.mark.parametrize("table", ["RECIPES", "DENSE"])
def test_another_recipe_is_refused(tmp_path, monkeypatch, table):
    settle(tmp_path)
    recipes = getattr(recipe, table)
    changed = {name: replace(r, learning_rate=2 * r.learning_rate) for name, r in recipes.items()}
    monkeypatch.setattr(recipe, table, changed)
    with pytest.raises(UsageError):
        settle(tmp_path)


@pytest.fixture
def calls(monkeypatch):
    """Loading, training and assembling leave their names instead."""
    made = []
    monkeypatch.setattr(data, "load", lambda *_: unlabeled(3))
    monkeypatch.setattr(networks, "run", lambda training: made.append(("train", training.seed)))
    monkeypatch.setattr(
        assemble, "assemble", lambda _g, _w, _o, seed, weights, _s: made.append((weights, seed)) or "id"
    )
    return made


def test_a_build_trains_and_assembles(tmp_path, calls):
    assert build.build(tmp_path, tmp_path / "out", seed=3) == "id"
    assert calls == [("train", 3), (None, 3)]
    with pytest.raises(UsageError):
        build.build(tmp_path, tmp_path / "out", seed=4)


def test_given_weights_are_not_trained_whatever_was_trained_before(tmp_path, calls):
    build.build(tmp_path, tmp_path / "out", seed=3)
    calls.clear()
    build.build(tmp_path, tmp_path / "out", seed=4, weights="bundle")
    assert calls == [("bundle", 4)]
