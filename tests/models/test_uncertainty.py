import copy
import itertools

import numpy as np
import pytest

from gax_batch import gz2
from gax_batch.errors import UsageError
from gax_batch.models import uncertainty
from gax_batch.models.blending import Blend
from gax_batch.models.bundle import MODELS, load_bundle
from gax_batch.models.predictive import GRID, GROUPS, Predictive
from gax_batch.models.uncertainty import Calibration, Summary

PREDICTIVE = Predictive(
    np.tile(np.array([0.0004, 0.05, 1], np.float32), (gz2.N_QUESTIONS, 1)),
    np.tile(np.linspace(-2, 2, len(GRID), dtype=np.float32), (gz2.N_QUESTIONS, *GROUPS, 1)),
)


def random_fractions(*shape, seed=0):
    raw = np.random.default_rng(seed).gamma(0.7, size=(*shape, gz2.N_ANSWERS)) + 1e-3
    return gz2.cumulative(gz2.conditional(raw)).astype(np.float32)


def calibration(*models, weights=None):
    return Calibration(
        models=models,
        blend=Blend.of(weights or {name: [1 / len(models)] * gz2.N_QUESTIONS for name in models}),
        predictive=PREDICTIVE,
        ood_threshold=0.5,
    )


def outputs_of(galaxies=6, draws=16, seed=0):
    """Outputs of Bayesian CNN and CNN-SVR: the regressions' draws scatter around them."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(0.3, 0.2, (1, galaxies, gz2.N_ANSWERS))
    deviations = rng.normal(0, 0.05, (8, galaxies, gz2.N_ANSWERS))
    svr, svr_draws = uncertainty.svr_fractions(np.concatenate([raw, deviations]).astype(np.float32))
    return {
        "bayesian": random_fractions(draws, galaxies, seed=seed),
        "svr": svr,
        "svr_draws": svr_draws,
        "closeness": np.linspace(0, 1, galaxies, dtype=np.float32),
    }


def test_entropy_is_zero_for_certainty_and_log_n_for_ignorance():
    even = gz2.conditional(np.zeros((1, gz2.N_ANSWERS), np.float32))
    np.testing.assert_allclose(
        uncertainty.entropy(even)[0], [np.log(len(q.answers)) for q in gz2.QUESTIONS], rtol=1e-6
    )
    certain = np.zeros((1, gz2.N_ANSWERS), np.float32)
    certain[0, [q.start for q in gz2.QUESTIONS]] = 1
    assert np.all(uncertainty.entropy(certain) == 0)


def test_equal_draws_have_no_spread_and_no_mutual_information():
    draws = np.repeat(random_fractions(1, 5), 4, axis=0)
    mean, std, entropy, information = uncertainty.draw_statistics(draws)
    np.testing.assert_allclose(mean, draws[0], atol=1e-7)
    np.testing.assert_allclose(std, 0, atol=1e-7)
    np.testing.assert_allclose(information, 0, atol=1e-6)
    assert np.all(entropy > 0)


def test_certain_draws_that_disagree_have_nothing_but_mutual_information():
    draws = np.zeros((2, 1, gz2.N_ANSWERS), np.float32)
    for k in range(2):
        draws[k, 0, [q.start + k for q in gz2.QUESTIONS]] = 1
    _, std, entropy, information = uncertainty.draw_statistics(gz2.cumulative(draws))
    assert std[0, 0] == pytest.approx(0.5)
    np.testing.assert_allclose(entropy[0, [0, 5]], np.log(2), rtol=1e-6)
    np.testing.assert_allclose(information[0, [0, 5]], np.log(2), rtol=1e-6)


def test_mutual_information_lies_between_zero_and_entropy():
    _, _, entropy, information = uncertainty.draw_statistics(random_fractions(6, 50))
    assert np.all((information >= 0) & (information <= entropy))


def test_spread_is_the_standard_deviation_over_draws():
    draws = random_fractions(7, 9)
    np.testing.assert_allclose(uncertainty.draw_statistics(draws)[1], draws.std(axis=0), atol=1e-6)


def test_a_regression_becomes_fractions():
    raw = np.random.default_rng(0).normal(0.3, 0.4, (200, gz2.N_ANSWERS)).astype(np.float32)
    raw[0] = -1
    fractions = uncertainty.regression_to_fractions(raw)
    assert gz2.inconsistency(fractions) < 1e-6
    assert np.all((fractions >= 0) & (fractions <= 1))


@pytest.fixture
def pairs():
    """Eight halves of differences of regressions that are well inside of the fractions' bounds."""
    rng = np.random.default_rng(1)
    mean = random_fractions(1, 20) + np.float32(0.1)
    return np.concatenate([mean, rng.normal(0, 0.005, (8, 20, gz2.N_ANSWERS))]).astype(np.float32)


def test_the_regressions_draws_are_fractions_and_opposite_eight_apart(pairs):
    mean, draws = uncertainty.svr_fractions(pairs)
    assert mean.shape == (20, gz2.N_ANSWERS)
    assert draws.shape == (16, 20, gz2.N_ANSWERS)
    assert mean.dtype == draws.dtype == np.float32
    assert gz2.inconsistency(draws) < 1e-6
    assert np.all((draws >= 0) & (draws <= 1))
    above, below = draws[:8] - mean, draws[8:] - mean
    assert np.abs(above).max() > 5e-3
    # Opposite but for what normalization down the tree bends.
    np.testing.assert_allclose(above, -below, atol=0.1 * np.abs(above).max())
    np.testing.assert_array_equal(mean, uncertainty.regression_to_fractions(pairs[0]))
    np.testing.assert_array_equal(draws[3], uncertainty.regression_to_fractions(pairs[0] + pairs[4]))
    np.testing.assert_array_equal(draws[11], uncertainty.regression_to_fractions(pairs[0] - pairs[4]))


def test_draws_start_again_after_the_last():
    draws = np.arange(3, dtype=np.float32)[:, None, None]
    assert uncertainty.repeated(draws, 7).ravel().tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert uncertainty.repeated(draws, 2).ravel().tolist() == [0, 1]


class TestBlendedDraws:
    """`prob`, `std`, the kept draws and what `population` sums are of the same draws."""

    @pytest.fixture(params=[3, 16, 32, 40])
    def outputs(self, request):
        return outputs_of(draws=request.param)

    def test_the_spread_of_the_kept_draws_is_the_columns(self, outputs):
        summary = uncertainty.summarize(calibration("bayesian", "svr"), outputs)
        assert summary.std.min() > 0
        np.testing.assert_allclose(summary.draws.std(axis=1), summary.std, atol=1e-6)
        stored = summary.draws.astype(np.float16).astype(np.float64)
        np.testing.assert_allclose(stored.std(axis=1), summary.std, atol=np.finfo(np.float16).eps)

    def test_the_fractions_are_the_mean_of_the_draws_and_sum_up(self, outputs):
        summary = uncertainty.summarize(calibration("bayesian", "svr"), outputs)
        assert summary.draws.shape == (6, len(outputs["bayesian"]), gz2.N_ANSWERS)
        np.testing.assert_allclose(summary.draws.mean(axis=1), summary.prob, atol=1e-6)
        assert gz2.inconsistency(summary.prob) < 1e-5
        assert gz2.inconsistency(summary.draws) < 1e-5

    def test_draw_k_is_the_blend_of_both_models_draws_k(self, outputs):
        both = calibration("bayesian", "svr")
        summary = uncertainty.summarize(both, outputs)
        for k in range(len(outputs["bayesian"])):
            each = {"bayesian": outputs["bayesian"][k], "svr": outputs["svr_draws"][k % 16]}
            np.testing.assert_allclose(summary.draws[:, k], both.blend(each), atol=1e-6)

    def test_information_and_entropy_are_of_the_same_draws(self, outputs):
        summary = uncertainty.summarize(calibration("bayesian", "svr"), outputs)
        _, _, entropy, information = uncertainty.draw_statistics(np.swapaxes(summary.draws, 0, 1))
        np.testing.assert_allclose(summary.entropy, entropy, atol=1e-6)
        np.testing.assert_allclose(summary.mutual_info, information, atol=1e-6)

    def test_the_regressions_error_is_in_the_spread(self):
        outputs = outputs_of(draws=16)
        alone = {"bayesian": [0.0] * gz2.N_QUESTIONS, "svr": [1.0] * gz2.N_QUESTIONS}
        summary = uncertainty.summarize(calibration("bayesian", "svr", weights=alone), outputs)
        np.testing.assert_allclose(summary.std, outputs["svr_draws"].std(axis=0), atol=1e-6)
        certain = outputs | {"svr_draws": np.repeat(outputs["svr"][None], 16, axis=0)}
        none = uncertainty.summarize(calibration("bayesian", "svr", weights=alone), certain)
        np.testing.assert_allclose(none.std, 0, atol=1e-6)

    def test_half_a_model_without_spread_halves_the_spread(self):
        """Item 11: `std` was the Bayesian CNN's alone, `draws` of the blend."""
        outputs = {"bayesian": random_fractions(16, 6), "classic": random_fractions(6, seed=3)}
        summary = uncertainty.summarize(calibration("bayesian", "classic"), outputs)
        first = gz2.QUESTIONS[0].columns
        np.testing.assert_allclose(
            summary.std[:, first], outputs["bayesian"].std(axis=0)[:, first] / 2, atol=1e-6
        )


def test_a_summary_of_all_models_has_every_number():
    summary = uncertainty.summarize(calibration("bayesian", "svr"), outputs_of())
    assert all(np.isfinite(values).all() for name, values in summary.columns().items() if name != "gz2_class")
    assert summary.out_of_distribution.tolist() == [True, True, True, False, False, False]
    np.testing.assert_array_equal(summary.gz2_class_margin, gz2.gz2_class_margin(summary.prob))
    np.testing.assert_array_equal(summary.svr, outputs_of()["svr"])
    lo, hi = PREDICTIVE.interval(summary.prob, summary.std, 0.9)
    np.testing.assert_array_equal((summary.lo, summary.hi), (lo, hi))


def test_what_absent_models_would_say_is_nan():
    summary = uncertainty.summarize(calibration("classic"), {"classic": random_fractions(6)})
    for name in ("std", "svr", "mutual_info", "ood_score"):
        assert np.isnan(getattr(summary, name)).all()
    for name in ("prob", "lo", "hi", "entropy"):
        assert np.isfinite(getattr(summary, name)).all()
    assert not summary.out_of_distribution.any()


def test_columns_are_named_as_in_the_catalog():
    outputs = {name: values for name, values in outputs_of(3).items() if name != "bayesian"}
    summary = uncertainty.summarize(calibration("svr"), outputs)
    assert np.isnan(summary.std).all()
    columns = summary.columns()
    assert len(columns) == 37 * 5 + 11 * 2 + 4
    np.testing.assert_array_equal(columns["t02_edgeon_a04_yes_svr"], summary.svr[:, 3])
    np.testing.assert_array_equal(columns["t06_odd_entropy"], summary.entropy[:, 5])


def test_summaries_are_cut_and_joined_by_rows():
    whole = uncertainty.summarize(calibration("classic"), {"classic": random_fractions(5)})
    joined = Summary.concatenate([whole.head(2), whole.head(5)])
    assert joined.gz2_class == whole.gz2_class[:2] + whole.gz2_class
    np.testing.assert_array_equal(joined.prob[2:], whole.prob)


class TestCalibrationOfABundle:
    """What a run reads from the bundle before it starts."""

    @pytest.mark.parametrize("lost", ["quantiles", "scale", "blend"])
    def test_a_bundle_that_lost_a_question_is_refused(self, lost):
        values = copy.deepcopy(load_bundle().manifest["calibration"])
        part = values["combinations"]["bayesian+svr"]
        row = part["blend"]["svr"] if lost == "blend" else part[lost]
        row.pop()
        with pytest.raises(UsageError, match=lost) as caught:
            Calibration.of_bundle(values, ["svr", "bayesian"])
        assert "\n" not in str(caught.value)

    def test_the_shipped_bundle_is_calibrated_for_every_choice_of_models(self):
        for size in (1, 2, 3):
            for models in itertools.combinations(MODELS, size):
                usable = Calibration.of_bundle(load_bundle().manifest["calibration"], models)
                assert usable.models == tuple(sorted(models))
                np.testing.assert_allclose(
                    np.sum([usable.blend.weights[m] for m in models], axis=0), 1, atol=1e-4
                )

    def test_a_bundle_of_an_earlier_release_serves_a_catalog_without_conditional_intervals(self):
        values = copy.deepcopy(load_bundle().manifest["calibration"])
        combination = values["combinations"]["bayesian+svr"]
        combination.pop("conditional", None)
        assert Calibration.of_bundle(values, ["svr", "bayesian"]).conditional is None
        combination["conditional"] = PREDICTIVE.as_json()
        asked = Calibration.of_bundle(values, ["svr", "bayesian"]).conditional
        assert asked is not None
        assert asked.conditional

    def test_models_it_was_not_calibrated_for_are_refused(self):
        values = {**load_bundle().manifest["calibration"], "combinations": {}}
        with pytest.raises(UsageError, match="svr"):
            Calibration.of_bundle(values, ["svr"])
