import math

import numpy as np
import pytest
from labeled_galaxies import blurred, labels_of, partly, random_fractions

from gax_batch.analysis.labels import Labels
from gax_batch.models import uncertainty
from training import calibrate, report

COMPLETE, SOME, CLEAR, NONE = 60, 20, 15, 5
KINDS = ("stars", "noise")


def outputs_of(truth, seed):
    return {
        "bayesian": blurred(truth, 0.4, seed, (4,)),
        "classic": blurred(truth, 0.6, seed + 1),
        "svr": blurred(truth, 0.4, seed + 2),
        "svr_draws": blurred(truth, 0.4, seed + 3, (4,)),
        "closeness": np.random.default_rng(seed).uniform(0.5, 1, len(truth)).astype(np.float32),
        "dropout": blurred(truth, 0.5, seed + 4, (4,)),
    }


@pytest.fixture(scope="module")
def sample():
    """Labels of every kind, and the fractions behind them."""
    truth = random_fractions(COMPLETE + SOME + CLEAR + NONE)
    known = truth.copy()
    known[COMPLETE : COMPLETE + SOME] = partly(truth[COMPLETE : COMPLETE + SOME])
    known[COMPLETE + SOME :] = np.nan
    classes = np.full(len(truth), -1, np.int8)
    classes[COMPLETE + SOME :] = np.concatenate([np.arange(CLEAR) % 5, np.full(NONE, 5)])
    labels = labels_of(known)
    return truth, Labels(
        labels.ids,
        labels.cumulative,
        labels.volunteers,
        classes,
        labels.strict,
        labels.largest,
        "debiased",
        "GalaxyID",
    )


@pytest.fixture(scope="module")
def measured(sample):
    truth, labels = sample
    before = random_fractions(200, seed=9)
    calibrating = labels_of(before)
    outputs = outputs_of(before, 30)
    values = calibrate.calibrate(calibrating, outputs)
    blind = calibrate.without_spread(calibrating, outputs, values, report.DEFAULT)
    found = outputs_of(truth, 60)
    first = uncertainty.rows_of(found, np.arange(8))
    strange = {kind: np.full(6, 0.1, np.float32) for kind in KINDS}
    look = {"size": np.random.default_rng(1).normal(size=len(truth))}
    return report.measure(labels, found, values, blind, report.Distorted(first, strange), look)


def numbers(value, path=""):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from numbers(inner, f"{path}/{key}")
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from numbers(inner, f"{path}/{index}")
    elif not isinstance(value, str):
        yield path, value


def test_every_number_is_finite(measured):
    found = dict(numbers(measured))
    assert len(found) > 100
    assert not [path for path, value in found.items() if not math.isfinite(value)]


def test_the_counts_are_those_of_the_sample(measured):
    assert measured["galaxies"]["voted"] == COMPLETE + SOME
    assert measured["galaxies"]["classes"] == CLEAR
    assert {model["galaxies"] for model in measured["models"].values()} == {COMPLETE}
    assert measured["draws"] == 4


def test_models_have_their_own_errors(measured):
    models = measured["models"]
    assert len(models) == 6
    assert models["blend"]["rmse"] < min(models[name]["rmse"] for name in ("bayesian", "svr", "classic"))
    assert models["blend"]["rmse"] == pytest.approx(models["blend"]["rmse_of_some_fractions"], abs=0.02)
    assert len(models["blend"]["by_class"]) == 5


def test_coverage_is_reported_with_and_without_the_spread(measured):
    for intervals in (measured["intervals"], measured["intervals without the Bayesian spread"]):
        assert set(intervals) == {"0.5", "0.68", "0.9", "0.95"}
        for level, found in intervals.items():
            assert found["coverage"] == pytest.approx(float(level), abs=0.08)


def test_coverage_of_conditional_fractions_is_reported_by_question(measured):
    found = measured["conditional"]
    assert found["galaxies"] == COMPLETE + SOME
    assert found["coverage"] == pytest.approx(0.9, abs=0.06)
    assert found["questions"]["t04_spiral"]["galaxies"] == COMPLETE
    assert len(found["questions"]) == 11


def test_coverage_is_reported_by_the_look_of_the_galaxies_with_fractions(measured):
    fifths = measured["by_look"]["size"]
    assert len(fifths) == 5
    assert sum(group["fractions"] for group in fifths) == measured["fractions"]
    counts = [group["fractions"] for group in fifths]
    held = np.average([group["coverage"] for group in fifths], weights=counts)
    assert held == pytest.approx(measured["intervals"]["0.9"]["coverage"], abs=2e-4)


def test_intervals_without_the_spread_are_of_the_same_galaxies(sample):
    """Distributions that are not told a spread either way have the same coverage and widths."""
    truth, labels = sample
    found = outputs_of(truth, 60)
    values = calibrate.calibrate(labels, found)
    fitted = uncertainty.Calibration.of_bundle(values, report.DEFAULT).predictive
    for combination in values["combinations"].values():
        for scale in combination["scale"]:
            scale[2] = 0.0
    fitted.scale[:, 2] = 0
    distorted = report.Distorted(found, {"stars": np.zeros(3, np.float32)})
    measured = report.measure(labels, found, values, fitted, distorted, {})
    for level, blind in measured["intervals without the Bayesian spread"].items():
        for key in ("coverage", "coverage_asked", "width", "width_asked"):
            assert blind[key] == measured["intervals"][level][key], (level, key)


def test_draws_alone_are_judged_on_the_galaxies_with_all_fractions(measured):
    for found in measured["epistemic"].values():
        assert 0 < found["coverage_of_draws_alone"] < 1
        assert found["mean_std"] > 0


def test_what_is_no_galaxy_is_recognized_and_what_was_not_turned_has_not_changed(measured):
    assert measured["out_of_distribution"] == {"auc_stars": 1, "auc_noise": 1, "auc": 1}
    assert measured["rotation_mean_change"] == 0


def test_a_sample_without_clear_classes_is_measured_too(sample):
    truth, labels = sample
    rows = np.arange(COMPLETE)
    found = uncertainty.rows_of(outputs_of(truth, 60), rows)
    values = calibrate.calibrate(labels.take(rows), found)
    blind = calibrate.without_spread(labels.take(rows), found, values, report.DEFAULT)
    distorted = report.Distorted(found, {"stars": np.zeros(3, np.float32)})
    measured = report.measure(labels.take(rows), found, values, blind, distorted, {})
    assert "class_accuracy" not in measured["models"]["blend"]
