"""Intervals of population fractions against closed forms and simulated populations of known truth."""

import numpy as np
import pyarrow as pa
import pytest
from fake_engine import ANCHOR, LEANS, known_draws
from scipy import stats

from gax_batch import gz2
from gax_batch.analysis.combine import ALL, ASKED, estimate
from gax_batch.analysis.population import _moments
from gax_batch.catalog.sums import EXPECTED, MOST_LIKELY, Grouping, add_up, sums_of
from gax_batch.models.nesting import DEFAULT, Nesting

SMOOTH, FEATURES, EDGE_ON = 0, 1, 3
FEW = Nesting(4, 1)
"""Four draws of four passes, which are independent."""


def random_prob(count, seed=0):
    raw = np.random.default_rng(seed).gamma(0.7, size=(count, gz2.N_ANSWERS)) + 1e-3
    return gz2.cumulative(gz2.conditional(raw)).astype(np.float32)


def moments_of(draws):
    rows = pa.table({"x": np.zeros(len(draws))})
    return _moments(add_up([sums_of(rows, np.asarray(draws, np.float32), Grouping())]))


@pytest.mark.parametrize("count", [100, 10_000])
def test_coherent_draws_have_a_width_that_does_not_shrink_with_the_number_of_galaxies(count):
    prob = random_prob(count)
    got = estimate(moments_of(known_draws(prob)), EXPECTED, ALL, 0.9, FEW)
    mean = prob.mean(axis=0, dtype=np.float64)
    # All galaxies of draw k lean by LEANS[k] to the anchor, and so does their mean.
    leans = LEANS.astype(np.float64)
    shift = ANCHOR - mean
    model = np.sqrt(1.25 * leans.var(ddof=1)) * np.abs(shift)
    np.testing.assert_allclose(got.value, mean + leans.mean() * shift, atol=1e-7)
    np.testing.assert_allclose(got.model_std, model, rtol=1e-4, atol=1e-8)
    # Within draw k, galaxies differ (1 - lean) times as much as they do by themselves.
    sampling = prob.std(axis=0, ddof=1, dtype=np.float64) * np.sqrt(np.mean((1 - leans) ** 2) / count)
    np.testing.assert_allclose(got.sampling_std, sampling, rtol=1e-3)
    total = np.hypot(model, sampling)
    reach = stats.t.ppf(0.95, 3 * (total / model) ** 4) * total
    np.testing.assert_allclose(got.lo, np.clip(got.value - reach, 0, 1), atol=1e-6)
    np.testing.assert_allclose(got.hi, np.clip(got.value + reach, 0, 1), atol=1e-6)


def test_a_hundred_times_the_galaxies_lower_only_the_sampling_error():
    few, many = (
        estimate(moments_of(known_draws(random_prob(n))), EXPECTED, ALL, 0.9, FEW) for n in (200, 20_000)
    )
    wide = np.abs(ANCHOR - few.value) > 0.05
    assert wide.sum() >= 3
    np.testing.assert_allclose(many.model_std[wide], few.model_std[wide], rtol=0.5)
    np.testing.assert_allclose(many.sampling_std, few.sampling_std / 10, rtol=0.5)


def test_draws_that_agree_leave_the_sampling_error_of_a_mean():
    prob = random_prob(50)
    got = estimate(moments_of(np.repeat(prob[:, None], 4, axis=1)), EXPECTED, ALL, 0.9, FEW)
    exact = prob.astype(np.float64)
    np.testing.assert_allclose(got.model_std, 0, atol=1e-9)
    np.testing.assert_allclose(got.sampling_std, stats.sem(exact, axis=0), rtol=1e-6)
    reach = stats.norm.ppf(0.95) * stats.sem(exact, axis=0)
    np.testing.assert_allclose(got.hi, np.clip(exact.mean(0) + reach, 0, 1), atol=1e-7)


def test_fractions_of_those_asked_are_ratios_of_sums():
    draws = known_draws(random_prob(60))
    moments = moments_of(draws)
    exact = draws.astype(np.float64)
    got = estimate(moments, EXPECTED, ASKED, 0.9, FEW)
    each = exact[:, :, EDGE_ON].sum(0) / exact[:, :, FEATURES].sum(0)
    assert got.value[EDGE_ON] == pytest.approx(each.mean())
    assert got.model_std[EDGE_ON] == pytest.approx(np.sqrt(1.25 * each.var(ddof=1)))
    # Everybody is asked the first question.
    whole = estimate(moments, EXPECTED, ALL, 0.9, FEW)
    for name in ("value", "model_std", "sampling_std", "lo", "hi"):
        assert getattr(got, name)[SMOOTH] == pytest.approx(getattr(whole, name)[SMOOTH], rel=1e-9)


def test_the_sampling_error_of_a_ratio_is_that_of_a_bootstrap():
    prob = random_prob(400)
    got = estimate(moments_of(np.repeat(prob[:, None], 4, axis=1)), EXPECTED, ASKED, 0.9, FEW)
    rng = np.random.default_rng(0)
    samples = prob[rng.integers(0, 400, (2000, 400))][:, :, [EDGE_ON, FEATURES]].sum(1, dtype=np.float64)
    # 2,000 samples know a standard deviation to 1.6 %.
    assert got.sampling_std[EDGE_ON] == pytest.approx(np.std(samples[:, 0] / samples[:, 1]), rel=0.08)


def test_counts_of_galaxies_are_binomial_with_wilsons_interval():
    prob = random_prob(80)
    got = estimate(moments_of(np.repeat(prob[:, None], 4, axis=1)), MOST_LIKELY, ALL, 0.9, FEW)
    counts = gz2.most_likely(prob).sum(axis=0)
    np.testing.assert_allclose(got.value, counts / 80)
    share = counts / 80
    np.testing.assert_allclose(got.sampling_std, np.sqrt(share * (1 - share) / 79), atol=1e-9)
    for answer in [*np.flatnonzero((counts == 0) | (counts == 80))[:3].tolist(), SMOOTH]:
        exact = stats.binomtest(int(counts[answer]), 80).proportion_ci(0.9, "wilson")
        assert (got.lo[answer], got.hi[answer]) == pytest.approx((exact.low, exact.high), abs=2e-3)
    assert got.hi[np.argmin(counts)] > 0


def leans_of(nesting: Nesting, rng: np.random.Generator, between: float, within: float) -> list[float]:
    """By how much the network of each draw leans: antithetic passes and heads by opposite amounts."""
    passes = between * rng.normal(size=(nesting.passes // 8, 4))
    heads = within * rng.normal(size=(nesting.passes, nesting.heads))
    leans = []
    for number, head in map(nesting.place, range(nesting.draws)):
        own = -heads[number, head - 1] if head % 2 else heads[number, head]
        leans.append((-1 if number % 8 >= 4 else 1) * passes[number // 8, number % 4] + own)
    return leans


@pytest.mark.parametrize(("between", "within"), [(0.03, 0), (0, 0.03), (0.02, 0.022)])
@pytest.mark.parametrize("nesting", [DEFAULT, Nesting(32, 1)])
def test_the_interval_holds_the_truth_as_often_as_it_says(nesting, between, within):
    # The network of each draw leans from the truth; the true one leans likewise.
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        population = rng.beta(2, 3, 200)
        truth = rng.normal(0, np.hypot(between, within))
        prob = np.repeat(random_prob(1)[:, None], nesting.draws, axis=1).repeat(200, axis=0)
        leans = np.array(leans_of(nesting, rng, between, within))
        prob[:, :, SMOOTH] = np.clip(population[:, None] + leans, 0, 1)
        got = estimate(moments_of(prob), EXPECTED, ALL, 0.9, nesting)
        held += got.lo[SMOOTH] <= 0.4 + truth <= got.hi[SMOOTH]
    # 90 % of 400 with a standard deviation of 1.5 %.
    assert held / 400 == pytest.approx(0.9, abs=0.04)


def test_what_the_galaxies_do_not_tell_is_nan():
    one = estimate(moments_of(known_draws(random_prob(1))), EXPECTED, ALL, 0.9, FEW)
    assert np.isfinite(one.value).all()
    assert np.isfinite(one.model_std).all()
    assert np.isnan(one.sampling_std).all()
    assert np.isnan(one.lo).all()
    smooth = np.zeros((5, 2, 37), np.float32)
    smooth[:, :, [0, 14, 15]] = 1
    got = estimate(moments_of(smooth), MOST_LIKELY, ASKED, 0.9, Nesting(2, 1))
    assert np.isnan(got.value[EDGE_ON])
    assert got.value[15] == 1
