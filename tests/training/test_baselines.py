import json
from dataclasses import replace

import numpy as np
import pytest
from labeled_galaxies import bright_and_faint, random_fractions

from gax_batch import gz2
from gax_batch.errors import UsageError
from gax_batch.models import bundle as bundles
from training import assemble, baselines, calibrate, checkpoint, comparison, data, networks, recipe
from training.data import CALIBRATE, REPORT, TRAIN
from training.recipe import TrainingStage
from training.train import Batches

COUNT = 96


@pytest.fixture(scope="module")
def galaxies():
    return bright_and_faint(COUNT)


def test_halves_are_disjoint_cover_what_trains_and_leave_the_other_samples(galaxies):
    first, second = (baselines.half_of(galaxies, half) for half in (0, 1))
    a, b = (set(half.rows(TRAIN)) for half in (first, second))
    assert not a & b
    assert a | b == set(galaxies.rows(TRAIN))
    assert min(len(a), len(b)) > len(galaxies.rows(TRAIN)) / 4
    for sample in (CALIBRATE, REPORT):
        np.testing.assert_array_equal(first.rows(sample), galaxies.rows(sample))
    trained = np.concatenate(Batches.of(first, 7).kinds)
    assert set(trained) <= a


def test_twins_are_in_one_half(galaxies):
    keys = galaxies.keys
    pairs = [(keys[i], keys[i + COUNT // 2]) for i in range(COUNT // 2)]
    twins = {k: v for one, other in pairs for k, v in ((one, other), (other, one))}
    everything = np.full(COUNT, TRAIN, np.int8)
    half = baselines.half_of(replace(galaxies, twins=twins, sample=everything), 0)
    np.testing.assert_array_equal(half.sample[: COUNT // 2], half.sample[COUNT // 2 :])


@pytest.fixture(scope="module")
def finished(galaxies, tmp_path_factory):
    """A finished training at toy size, with its bundle."""
    with pytest.MonkeyPatch.context() as patch:
        stage = (TrainingStage(16, 2),)
        patch.setattr(
            networks,
            "RECIPES",
            {name: replace(r, stages=stage, mixed=False) for name, r in recipe.RECIPES.items()},
        )
        patch.setattr(networks, "DENSE", {name: replace(r, steps=2) for name, r in recipe.DENSE.items()})
        # No clear class is in the sample that calibrates.
        patch.setattr(networks, "_report_errors", lambda *_: None)
        patch.setattr(networks.regression, "PAIRS", 8)
        patch.setattr(assemble, "DRAWS", 4)
        patch.setattr(data, "load", lambda *_: galaxies)
        output = tmp_path_factory.mktemp("baselines") / "toy"
        work = output.with_name("toy.work")
        work.mkdir()
        teacher = {"predictions": random_fractions(COUNT)}
        checkpoint.save(work / "teacher-predictions.safetensors", teacher)
        networks.run(networks.Training(galaxies, work, 7, say=lambda _: None))
        manifest = {
            "name": "toy",
            "seed": 7,
            "calibration": calibrate.neutral(),
            "training": {"labels_sha256": galaxies.digest()},
        }
        bundle = bundles.Bundle("toy-1", manifest, networks.exported(work))
        patch.setattr(baselines, "load_bundle", lambda _: bundle)
        yield output, work


def stamps(work):
    return {p: p.stat().st_mtime_ns for p in work.rglob("*") if p.is_file()}


def test_ensemble_and_halves_are_trained_measured_kept_and_resumed(finished, monkeypatch):
    output, work = finished
    before = stamps(work)
    numbers = baselines.run(output, output, members=2, halves=True)
    assert {p: t for p, t in stamps(work).items() if p in before} == before, "the training stays as it was"
    assert numbers == comparison.load(work)
    assert json.loads(json.dumps(numbers)) == numbers
    assert (numbers["bundle"], numbers["members"], numbers["effort"]) == ("toy-1", 3, baselines.EFFORT)
    found = numbers["models"]
    assert set(found) == {"deep ensemble", "blend", "bayesian", "classic with MC dropout"}
    assert found["deep ensemble"]["draws"] == 3
    assert found["deep ensemble"]["mean_std"] > 0
    assert np.isfinite(numbers["halves"]["all"]["ratio"])
    assert len(numbers["halves"]["questions"]) == gz2.N_QUESTIONS

    weights = [checkpoint.load(work / "baselines" / f"member-{i}" / "svr.safetensors") for i in (1, 2)]
    assert any(not np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])

    def no_training(*_args, **_options):
        raise AssertionError

    monkeypatch.setattr(networks.train, "fit", no_training)
    monkeypatch.setattr(networks.regression, "fit", no_training)
    assert baselines.run(output, output, members=2)["halves"] == numbers["halves"]


def test_another_effort_or_seed_is_refused(finished):
    output, work = finished
    (work / "baselines").mkdir(exist_ok=True)
    baselines.build.same_training(work / "baselines", bright_and_faint(COUNT).digest(), 7, baselines.EFFORT)
    for other in ({"effort": 0.25}, {"seed": 8}):
        with pytest.raises(UsageError):
            baselines.run(output, output, **other)


def test_without_a_finished_training_nothing_is_trained(finished, tmp_path):
    output, _ = finished
    with pytest.raises(UsageError):
        baselines.run(output, tmp_path / "other")
    with pytest.raises(UsageError):
        baselines.run(output, output, members=0)


def test_other_labels_than_the_bundles_are_refused(finished, monkeypatch):
    output, _ = finished
    monkeypatch.setattr(data, "load", lambda *_: bright_and_faint(16))
    with pytest.raises(UsageError):
        baselines.run(output, output)
