import copy

import numpy as np
import pytest

from gax_batch import tree, uncertainty
from gax_batch.errors import UsageError
from gax_batch.models.bundle import load_bundle
from gax_batch.uncertainty import Calibration, Summary


def random_fractions(*shape, seed=0):
    raw = np.random.default_rng(seed).gamma(0.7, size=(*shape, tree.N_ANSWERS)) + 1e-3
    return tree.cumulative(tree.conditional(raw)).astype(np.float32)


def calibration(*models, quantile=2.0):
    return Calibration(
        models=models,
        weights={name: [1 / len(models)] * tree.N_QUESTIONS for name in models},
        quantiles=np.full(tree.N_ANSWERS, quantile, np.float32),
        n_votes=40.0,
        floor=0.02,
        ood_threshold=0.5,
    )


def test_entropy_is_zero_for_certainty_and_log_n_for_ignorance():
    even = tree.conditional(np.zeros((1, tree.N_ANSWERS), np.float32))
    np.testing.assert_allclose(
        uncertainty.entropy(even)[0], [np.log(len(q.answers)) for q in tree.QUESTIONS], rtol=1e-6
    )
    certain = np.zeros((1, tree.N_ANSWERS), np.float32)
    certain[0, [q.start for q in tree.QUESTIONS]] = 1
    assert np.all(uncertainty.entropy(certain) == 0)


def test_equal_draws_have_no_spread_and_no_mutual_information():
    draws = np.repeat(random_fractions(1, 5), 4, axis=0)
    mean, std, entropy, information = uncertainty.draw_statistics(draws)
    np.testing.assert_allclose(mean, draws[0], atol=1e-7)
    np.testing.assert_allclose(std, 0, atol=1e-7)
    np.testing.assert_allclose(information, 0, atol=1e-6)
    assert np.all(entropy > 0)


def test_certain_draws_that_disagree_have_nothing_but_mutual_information():
    draws = np.zeros((2, 1, tree.N_ANSWERS), np.float32)
    for k in range(2):
        draws[k, 0, [q.start + k for q in tree.QUESTIONS]] = 1
    _, std, entropy, information = uncertainty.draw_statistics(tree.cumulative(draws))
    assert std[0, 0] == pytest.approx(0.5)
    np.testing.assert_allclose(entropy[0, [0, 5]], np.log(2), rtol=1e-6)
    np.testing.assert_allclose(information[0, [0, 5]], np.log(2), rtol=1e-6)


def test_mutual_information_lies_between_zero_and_entropy():
    _, _, entropy, information = uncertainty.draw_statistics(random_fractions(6, 50))
    assert np.all((information >= 0) & (information <= entropy))


def test_spread_is_the_standard_deviation_over_draws():
    draws = random_fractions(7, 9)
    np.testing.assert_allclose(uncertainty.draw_statistics(draws)[1], draws.std(axis=0), atol=1e-6)


def test_blend_is_consistent_and_between_its_models():
    predictions = {"bayesian": random_fractions(30, seed=1), "svr": random_fractions(30, seed=2)}
    weights = {"bayesian": np.linspace(0, 1, 11), "svr": np.linspace(1, 0, 11)}
    mixed = uncertainty.blend(predictions, weights)
    assert tree.inconsistency(mixed) < 1e-6
    assert mixed.dtype == np.float32
    # The first question is the SVR's alone.
    np.testing.assert_allclose(mixed[:, :3], predictions["svr"][:, :3], atol=1e-6)


def test_blend_of_one_model_is_that_model():
    prediction = random_fractions(10)
    mixed = uncertainty.blend({"classic": prediction}, {"classic": [1.0] * 11})
    np.testing.assert_allclose(mixed, prediction, atol=1e-6)


def test_conformal_intervals_cover_as_promised_even_if_the_model_is_wrong():
    rng = np.random.default_rng(3)

    def galaxies(count):
        true = random_fractions(count, seed=int(rng.integers(1 << 30)))
        votes = rng.binomial(40, np.clip(true, 0, 1)) / 40
        # Biased predictions, and a claimed spread that is far too small.
        predicted = np.clip(true + 0.1 + rng.normal(0, 0.1, true.shape), 0, 1).astype(np.float32)
        return predicted, np.full_like(true, 0.001), votes.astype(np.float32)

    prob, std, truth = galaxies(400)
    quantiles = uncertainty.fit_conformal(prob, std, truth, n_votes=40, floor=0.02)
    prob, std, truth = galaxies(4000)
    lo, hi = uncertainty.interval(prob, std, quantiles, n_votes=40, floor=0.02)
    covered = ((truth >= lo) & (truth <= hi)).mean(axis=0)
    assert covered.mean() == pytest.approx(0.9, abs=0.02)
    assert covered.min() > 0.84


def test_conformal_rank_has_the_finite_sample_correction():
    errors = np.arange(1, 10, dtype=np.float32)[:, None] / 100
    prob, std = np.zeros_like(errors), np.zeros_like(errors)
    quantile = uncertainty.fit_conformal(prob, std, errors, n_votes=40, floor=1.0)
    assert quantile == pytest.approx(0.09)
    too_few = uncertainty.fit_conformal(prob[:8], std[:8], errors[:8], n_votes=40, floor=1.0)
    assert np.isinf(too_few).all()


def test_intervals_hold_the_probability_and_stay_in_the_unit_interval():
    prob, std = random_fractions(50), random_fractions(50, seed=9)
    quantiles = np.full(tree.N_ANSWERS, np.inf, np.float32)
    quantiles[:20] = 1.5
    quantiles[20] = 0
    lo, hi = uncertainty.interval(prob, std, quantiles, n_votes=40, floor=0.02)
    assert np.all((lo >= 0) & (lo <= prob) & (prob <= hi) & (hi <= 1))


def test_a_regression_becomes_fractions():
    raw = np.random.default_rng(0).normal(0.3, 0.4, (200, tree.N_ANSWERS)).astype(np.float32)
    raw[0] = -1
    fractions = uncertainty.regression_to_fractions(raw)
    assert tree.inconsistency(fractions) < 1e-6
    assert np.all((fractions >= 0) & (fractions <= 1))


def test_a_summary_of_all_models_has_every_number():
    summary = uncertainty.summarize(
        calibration("bayesian", "svr"),
        {
            "bayesian": random_fractions(4, 6),
            "svr": random_fractions(6),
            "closeness": np.linspace(0, 1, 6, dtype=np.float32),
        },
    )
    assert all(np.isfinite(values).all() for name, values in summary.columns().items() if name != "gz2_class")
    assert summary.out_of_distribution.tolist() == [True, True, True, False, False, False]
    assert tree.inconsistency(summary.prob) < 1e-6


def test_what_absent_models_would_say_is_nan():
    summary = uncertainty.summarize(calibration("classic"), {"classic": random_fractions(6)})
    for name in ("std", "svr", "mutual_info", "ood_score"):
        assert np.isnan(getattr(summary, name)).all()
    for name in ("prob", "lo", "hi", "entropy"):
        assert np.isfinite(getattr(summary, name)).all()
    assert not summary.out_of_distribution.any()


def test_columns_are_named_as_in_the_catalog():
    summary = uncertainty.summarize(
        calibration("svr"), {"svr": random_fractions(3), "closeness": np.ones(3, np.float32)}
    )
    columns = summary.columns()
    assert len(columns) == 37 * 5 + 11 * 2 + 3
    np.testing.assert_array_equal(columns["t02_edgeon_a04_yes_svr"], summary.svr[:, 3])
    np.testing.assert_array_equal(columns["t06_odd_entropy"], summary.entropy[:, 5])


def test_summaries_are_cut_and_joined_by_rows():
    whole = uncertainty.summarize(calibration("classic"), {"classic": random_fractions(5)})
    joined = Summary.concatenate([whole.head(2), whole.head(5)])
    assert joined.gz2_class == whole.gz2_class[:2] + whole.gz2_class
    np.testing.assert_array_equal(joined.prob[2:], whole.prob)


class TestCalibrationOfABundle:
    """What a run reads from the bundle before it starts."""

    @pytest.mark.parametrize("lost", ["quantiles", "blend"])
    def test_a_bundle_that_lost_a_question_is_refused(self, lost):
        values = copy.deepcopy(load_bundle().manifest["calibration"])
        part = values["combinations"]["bayesian+svr"]
        row = part["blend"]["svr"] if lost == "blend" else part[lost]
        row.pop()
        with pytest.raises(UsageError, match="lost a question") as caught:
            Calibration.of_bundle(values, ["svr", "bayesian"])
        assert "\n" not in str(caught.value)

    def test_models_it_was_not_calibrated_for_are_refused(self):
        values = {**load_bundle().manifest["calibration"], "combinations": {}}
        with pytest.raises(UsageError, match="not calibrated for the models svr"):
            Calibration.of_bundle(values, ["svr"])


def test_draw_k_is_what_prob_would_be_of_that_network_alone():
    outputs = {
        "bayesian": random_fractions(4, 6),
        "svr": random_fractions(6, seed=1),
        "closeness": np.ones(6, np.float32),
    }
    both = calibration("bayesian", "svr")
    summary = uncertainty.summarize(both, outputs)
    assert summary.draws.shape == (6, 4, 37)
    assert tree.inconsistency(summary.draws) < 1e-6
    for k in range(4):
        alone = uncertainty.summarize(both, outputs | {"bayesian": outputs["bayesian"][k : k + 1]})
        np.testing.assert_allclose(summary.draws[:, k], alone.prob, atol=1e-6)
    without = uncertainty.summarize(calibration("classic"), {"classic": random_fractions(5)})
    assert without.draws.shape == (5, 0, 37)
