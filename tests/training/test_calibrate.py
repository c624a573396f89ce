import numpy as np
import pytest

from gax_batch import tree, uncertainty
from gax_batch.evaluation import metrics
from gax_batch.labels import Labels
from training import calibrate


def galaxies(count=300, seed=0):
    rng = np.random.default_rng(seed)
    raw = rng.gamma(0.8, size=(count, tree.N_ANSWERS)) + 1e-3
    fractions = tree.conditional(raw).astype(np.float32)
    cumulative = tree.cumulative(fractions)
    reached = np.stack(
        [np.full(count, 40.0) if q.parent is None else 40 * cumulative[:, q.parent] for q in tree.QUESTIONS],
        axis=1,
    )
    classes = np.full(count, -1, np.int8)
    return Labels([str(i) for i in range(count)], fractions, reached.astype(np.float32), classes)


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
    best = min(metrics.rmse(p, truth.cumulative) for p in models.values())
    assert metrics.rmse(mixed, truth.cumulative) < best


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


def test_cross_calibrated_intervals_cover_galaxies_that_calibrated_nothing():
    """Simulated data with known truth: votes of finitely many volunteers about a blurred prediction."""
    rng = np.random.default_rng(5)
    labels = galaxies(1500, 6)
    draws = np.stack([predictions(labels, 0.5, seed) for seed in (1, 2, 3)])
    outputs = {
        "bayesian": draws,
        "svr": predictions(labels, 0.4, 8),
        "classic": predictions(labels, 0.6, 9),
        "closeness": rng.random(len(labels)).astype(np.float32),
    }
    folds = (np.arange(len(labels)) % 5).astype(np.int8)
    summary, intervals = calibrate.cross_calibrated(labels, folds, outputs, ("bayesian", "svr"))
    assert metrics.rmse(summary.prob, labels.cumulative) < metrics.rmse(outputs["svr"], labels.cumulative)
    for level, (lo, hi) in intervals.items():
        found = metrics.coverage(lo, hi, labels)
        assert found["coverage"] == pytest.approx(float(level), abs=0.01)
        for question in found["questions"].values():
            assert question["coverage"] == pytest.approx(float(level), abs=0.03)
    assert np.all(intervals["0.5"][1] <= intervals["0.95"][1])
    np.testing.assert_allclose(intervals["0.9"][0], summary.lo, atol=1e-6)
