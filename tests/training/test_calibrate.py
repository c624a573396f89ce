import numpy as np
import pytest
from labeled_galaxies import blurred, labels_of, partly, random_fractions

from gax_batch import gz2
from gax_batch.analysis.evaluation import metrics
from gax_batch.models import blending, predictive, uncertainty
from gax_batch.models.blending import Blend
from gax_batch.models.bundle import MODELS
from training import calibrate


def outputs_of(truth, seed):
    """What models say that err by 0.4, 2.0 (classic) and 0.4 in the logarithms."""
    rng = np.random.default_rng(seed)
    base = blurred(truth, 0.35, seed + 1)
    return {
        "bayesian": blurred(base, 0.2, seed + 2, (4,)),
        "classic": blurred(truth, 2.0, seed + 3),
        "svr": blurred(truth, 0.4, seed + 4),
        "svr_draws": blurred(truth, 0.4, seed + 5, (4,)),
        "closeness": rng.random(len(truth)).astype(np.float32),
    }


def points(outputs):
    return {"bayesian": outputs["bayesian"].mean(axis=0)} | {n: outputs[n] for n in ("classic", "svr")}


@pytest.fixture(scope="module")
def truth():
    return random_fractions(400)


@pytest.fixture(scope="module")
def outputs(truth):
    return outputs_of(truth, 10)


@pytest.fixture(scope="module")
def values(truth, outputs):
    return calibrate.calibrate(labels_of(truth), outputs)


def test_weights_are_shares_and_prefer_the_better_models(truth, outputs):
    weights = calibrate.fit_blend(labels_of(truth), points(outputs))
    table = np.array([weights[name] for name in sorted(MODELS)])
    np.testing.assert_allclose(table.sum(axis=0), 1, atol=1e-4)
    assert np.all(table >= 0)
    for name in ("bayesian", "svr"):
        assert np.all(np.array(weights["classic"]) < np.array(weights[name]))
    assert np.mean(weights["bayesian"]) == pytest.approx(np.mean(weights["svr"]), abs=0.15)


def test_a_model_that_is_right_gets_nearly_all_of_the_weight(truth):
    models = {"bayesian": blurred(truth, 0.02, 1), "svr": blurred(truth, 1.5, 2)}
    weights = calibrate.fit_blend(labels_of(truth), models)
    assert np.mean(weights["bayesian"]) > 0.9


def test_equal_models_share_equally(truth):
    same = blurred(truth, 0.5, 1)
    weights = calibrate.fit_blend(labels_of(truth), {"bayesian": same, "svr": same})
    np.testing.assert_allclose(weights["bayesian"], 0.5, atol=1e-3)


def test_the_blend_beats_its_models_on_other_galaxies(truth, outputs):
    weights = calibrate.fit_blend(labels_of(truth), points(outputs))
    others = random_fractions(400, seed=3)
    models = points(outputs_of(others, 40))
    best = min(metrics.rmse(p, others) for p in models.values())
    assert metrics.rmse(Blend.of(weights)(models), others) < best


def test_scaling_recovers_what_made_the_predictions_too_cautious(truth):
    conditional = np.asarray(gz2.conditional(truth))
    exponent = np.linspace(0.6, 1.0, gz2.N_QUESTIONS).astype(np.float32)
    offset = np.linspace(-0.3, 0.3, gz2.N_ANSWERS).astype(np.float32)
    cautious = gz2.cumulative(blending.scale(conditional, exponent, offset)).astype(np.float32)
    plain = Blend.of({"classic": [1.0] * gz2.N_QUESTIONS})
    fitted = calibrate.fit_scaling(labels_of(truth), {"classic": cautious}, plain)
    before, after = (metrics.rmse(blend({"classic": cautious}), truth) for blend in (plain, fitted))
    # The pull to the plain mean leaves a part of it.
    assert after < 0.35 * before
    everybody = [q for q, question in enumerate(gz2.QUESTIONS) if question.parent is None]
    np.testing.assert_allclose(fitted.exponent[everybody], 1 / exponent[everybody], rtol=0.1)


def test_good_predictions_are_hardly_scaled(truth):
    fitted = calibrate.fit_scaling(
        labels_of(truth), {"svr": truth}, Blend.of({"svr": [1.0] * gz2.N_QUESTIONS})
    )
    np.testing.assert_allclose(fitted.exponent, 1, atol=1e-3)
    np.testing.assert_allclose(fitted.offset, 0, atol=1e-3)


def test_calibration_holds_every_choice_of_models_and_covers_other_galaxies(values, outputs):
    others = random_fractions(600, seed=4)
    judged = outputs_of(others, 50)
    choices = list(calibrate.combinations())
    assert len(values["combinations"]) == len(choices) == 7
    assert np.mean(1 - outputs["closeness"] > values["ood_threshold"]) == pytest.approx(0.01, abs=0.006)
    for chosen in choices:
        usable = uncertainty.Calibration.of_bundle(values, chosen)
        summary = uncertainty.summarize(usable, calibrate.needed(judged, chosen))
        inside = (others >= summary.lo - 1e-5) & (others <= summary.hi + 1e-5)
        assert inside.mean() == pytest.approx(0.9, abs=0.03), chosen
        lo, hi = usable.conditional.interval(summary.prob, summary.std, 0.9)
        asked = gz2.conditional(others)
        inside = (asked >= lo - 1e-5) & (asked <= hi + 1e-5)
        assert inside.mean() == pytest.approx(0.9, abs=0.03), chosen


def test_only_asked_choices_are_calibrated(truth, outputs, values):
    found = calibrate.calibrate(labels_of(truth), outputs, [("bayesian", "svr")])
    assert list(found["combinations"]) == ["bayesian+svr"]
    assert found["combinations"]["bayesian+svr"] == values["combinations"]["bayesian+svr"]


def test_galaxies_without_fractions_calibrate_nothing(truth, outputs, values):
    rows = np.concatenate([np.arange(len(truth)), np.arange(20)])
    more = truth[rows].copy()
    more[len(truth) :] = np.nan
    assert calibrate.calibrate(labels_of(more), uncertainty.rows_of(outputs, rows)) == values


def test_galaxies_with_some_fractions_calibrate_these(truth, outputs):
    mixed = truth.copy()
    mixed[200:] = partly(truth[200:])
    choice = [("classic",)]
    some, none = (
        calibrate.calibrate(labels, chosen, choice)["combinations"]["classic"]["exponent"]
        for labels, chosen in (
            (labels_of(mixed), outputs),
            (labels_of(truth[:200]), uncertainty.rows_of(outputs, np.arange(200))),
        )
    )
    # Bar is in no table of 17 columns; smooth is.
    assert some[2] == pytest.approx(none[2], abs=1e-3)
    assert some[0] != none[0]


def test_the_distribution_without_spread_knows_none(truth, outputs, values):
    blind = calibrate.without_spread(labels_of(truth), outputs, values, ("bayesian", "svr"))
    assert np.all(blind.scale[:, 2] == 0)
    usable = uncertainty.Calibration.of_bundle(values, ("bayesian", "svr"))
    summary = uncertainty.summarize(usable, calibrate.needed(outputs, ("bayesian", "svr")))
    lo, hi = blind.interval(summary.prob, np.full_like(summary.std, np.nan), 0.9)
    assert ((truth >= lo) & (truth <= hi)).mean() == pytest.approx(0.9, abs=0.02)


def test_the_neutral_calibration_serves_every_choice():
    for chosen in calibrate.combinations():
        usable = uncertainty.Calibration.of_bundle(calibrate.neutral(), chosen)
        assert usable.models == chosen
        assert isinstance(usable.predictive, predictive.Predictive)
        assert all(len(row) == gz2.N_QUESTIONS for row in usable.blend.weights.values())
