import copy
import json

import numpy as np
import pytest
from labeled_galaxies import labels_of, random_fractions

from gax_batch import gz2
from gax_batch.errors import UsageError
from gax_batch.models import predictive
from gax_batch.models.predictive import FEWEST, GRID, QUESTION_OF, Predictive

GROUPS, FRACTION_GROUPS = predictive.GROUPS


def simulated(count, seed, *, bias=0.0, uneven=1.0):
    """Predictions, their spreads, and true fractions that scatter as each galaxy and answer has its own.

    The scatter grows with the share of volunteers who are asked, which no term of the scale knows, unless
    `uneven` is 0.
    """
    rng = np.random.default_rng(seed)
    raw = rng.gamma(0.5, size=(count, gz2.N_ANSWERS)) + 1e-3
    prob = gz2.cumulative(gz2.conditional(raw)).astype(np.float32)
    std = rng.uniform(0.01, 0.08, prob.shape).astype(np.float32)
    width = np.sqrt(0.01**2 + 0.05 * prob * (1 - prob) + std**2) * (0.3 + uneven * gz2.parents(prob))
    truth = np.clip(prob + bias + width * rng.standard_t(4, prob.shape), 0, 1).astype(np.float32)
    return prob, std, truth


@pytest.fixture(scope="module")
def fitted():
    return predictive.fit(*simulated(3000, 1))


def covered(fitted, sample, level=0.9):
    """Whether a fraction lies between the quantiles, without the widening that holds the prediction."""
    prob, std, truth = sample
    low, high = fitted.at(prob, std, [(1 - level) / 2, (1 + level) / 2])
    return (truth >= low) & (truth <= high)


def tolerance(fitted_on, judged_on):
    """Four standard errors of a coverage of 90 %: of the galaxies that fitted it, and of those that judge."""
    return 4 * np.sqrt(0.09 * (1 / fitted_on + 1 / judged_on))


def test_coverage_holds_in_each_group_of_the_share_asked(fitted):
    fit_groups = predictive.share_groups(simulated(3000, 1)[0])
    sample = simulated(6000, 2)
    inside, groups = covered(fitted, sample), predictive.share_groups(sample[0])
    judged = 0
    for question in gz2.QUESTIONS:
        for group in range(GROUPS):
            rows = groups[:, question.start] == group
            before = int((fit_groups[:, question.start] == group).sum())
            if before >= FEWEST and rows.any():
                found = inside[rows, question.columns].mean()
                assert found == pytest.approx(0.9, abs=tolerance(before, rows.sum())), (question.name, group)
                judged += 1
    assert judged > 25


def test_groups_are_needed_for_it():
    """Without groups, galaxies that are asked are held too rarely: the test above can fail."""
    prob, std, truth = simulated(6000, 2)
    one = predictive.fit(*simulated(3000, 1))
    pooled = Predictive(one.scale, np.repeat(one.quantiles[:, :1], GROUPS, axis=1))
    asked = predictive.share_groups(prob) == GROUPS - 1
    conditional = asked & (np.array([q.parent is not None for q in gz2.QUESTIONS])[QUESTION_OF])
    assert covered(pooled, (prob, std, truth))[conditional].mean() < 0.85


@pytest.mark.parametrize("level", [0.5, 0.68, 0.95])
def test_other_levels_hold_as_often_as_they_say(fitted, level):
    assert covered(fitted, simulated(6000, 3), level).mean() == pytest.approx(level, abs=0.015)


def test_coverage_holds_overall_where_the_models_scale_is_wrong():
    """Predictions that are all too low, with a spread that says nothing."""
    samples = []
    for seed in (4, 5):
        prob, std, truth = simulated(3000, seed, bias=0.1)
        samples.append(
            (prob, np.random.default_rng(seed).gamma(0.3, size=std.shape).astype(np.float32), truth)
        )
    inside = covered(predictive.fit(*samples[0]), samples[1])
    assert inside.mean() == pytest.approx(0.9, abs=0.01)
    for question in gz2.QUESTIONS:
        assert inside[:, question.columns].mean() == pytest.approx(0.9, abs=tolerance(3000, 3000))


def test_coverage_without_spreads():
    samples = []
    for seed in (6, 7):
        prob, std, truth = simulated(2000, seed)
        samples.append((prob, np.full_like(std, np.nan), truth))
    assert covered(predictive.fit(*samples[0]), samples[1]).mean() == pytest.approx(0.9, abs=0.015)


def test_galaxies_that_were_not_asked_count_less():
    scores = np.concatenate([np.linspace(-1, 1, 400), np.zeros(600)])
    weights = np.repeat([1.0, predictive.UNASKED_WEIGHT], [400, 600])
    found = predictive.conformal_quantiles(scores, weights)
    # 180 of 580 weigh 0 in the middle: the tails are those of the 400, of which each is wider.
    tail = 0.05 * (580 + 1)
    assert found[GRID.index(0.95)] == pytest.approx(1 - 2 * tail / 400, abs=0.01)
    assert found[GRID.index(0.05)] == pytest.approx(-1 + 2 * tail / 400, abs=0.01)
    assert found[GRID.index(0.95)] > predictive.conformal_quantiles(scores)[GRID.index(0.95)]


@pytest.mark.parametrize(
    ("counts", "group", "merged"),
    [
        # Galaxies by group of the share asked and of the fraction.
        ({(0, 2): 200, (1, 2): 30, (2, 2): 80, (3, 2): 20}, (0, 2), {(0, 2)}),
        ({(0, 2): 200, (1, 2): 30, (2, 2): 80, (3, 2): 20}, (1, 2), {(0, 2), (1, 2)}),
        ({(0, 2): 200, (1, 2): 30, (2, 2): 80, (3, 2): 20}, (2, 2), {(2, 2)}),
        ({(0, 2): 200, (1, 2): 30, (2, 2): 80, (3, 2): 20}, (3, 2), {(2, 2), (3, 2)}),
        ({(0, 2): 10, (1, 2): 90, (2, 2): 90}, (0, 2), {(0, 2), (1, 2)}),
        (
            {(0, 1): 90, (1, 2): 30, (2, 2): 20, (1, 3): 70, (1, 4): 9},
            (1, 2),
            {(1, 2), (1, 3)},
        ),
        ({(3, 0): 30, (3, 1): 20, (3, 2): 100, (3, 3): 50}, (3, 0), {(3, 0), (3, 1), (3, 2)}),
        ({(3, 5): 7}, (0, 0), {(3, 5)}),
    ],
)
def test_a_group_of_too_few_fractions_is_merged_with_those_around_it(counts, group, merged):
    cells = np.repeat(list(counts), list(counts.values()), axis=0)
    scores = np.random.default_rng(0).normal(size=len(cells)).astype(np.float32)
    shares, fractions = cells.T[:, :, None]
    found = predictive.group_quantiles(scores[:, None], np.ones((len(cells), 1)), shares, fractions)
    members = [tuple(cell) in merged for cell in cells.tolist()]
    np.testing.assert_array_equal(found[group], predictive.conformal_quantiles(scores[members]))


def test_fractions_are_counted_not_galaxies():
    shares = np.repeat([[0, 0], [1, 1]], [100, FEWEST // 2], axis=0)
    scores = np.random.default_rng(0).normal(size=shares.shape).astype(np.float32)
    found = predictive.group_quantiles(scores, np.ones(shares.shape), shares, np.zeros_like(shares))
    np.testing.assert_array_equal(found[1, 0], predictive.conformal_quantiles(scores[100:].ravel()))


def test_a_few_galaxies_are_enough_for_intervals_that_hold_overall():
    inside = [
        covered(predictive.fit(*simulated(150, seed, uneven=0)), simulated(500, seed + 50, uneven=0)).mean()
        for seed in range(10)
    ]
    # The scale is fitted on the same galaxies as the quantiles, which costs a percent.
    assert np.mean(inside) == pytest.approx(0.9, abs=0.02)


def test_groups_follow_the_predicted_share_of_those_who_are_asked():
    prob = np.tile(random_fractions(1), (4, 1))
    prob[:, 4] = [0.05, 0.2, 0.5, 0.9]  # not edge-on: leads to bar, spiral and bulge
    groups = predictive.share_groups(prob)
    for question in (2, 3, 4):
        np.testing.assert_array_equal(groups[:, gz2.QUESTIONS[question].start], range(GROUPS))
    assert np.all(groups[:, gz2.QUESTIONS[0].columns] == GROUPS - 1)


def test_coverage_holds_by_predicted_fraction():
    """Small fractions cannot err downwards by much, which must not shorten the intervals of larger ones."""
    prob, std, truth = polled(3000, 31)
    fitted = predictive.fit(prob, std, truth, conditional=True)
    pooled = Predictive(fitted.scale, fitted.quantiles[:, :, [0] * FRACTION_GROUPS], conditional=True)
    sample = polled(3000, 32)
    known, groups = np.isfinite(sample[2]), predictive.fraction_groups(fitted.expected(sample[0]))
    middle = known & (groups == 3)
    assert covered(pooled, sample)[middle].mean() < 0.85
    for group in range(FRACTION_GROUPS):
        cells = known & (groups == group)
        # Fractions of a few votes are a few values, of which an end may be one.
        assert 0.88 < covered(fitted, sample)[cells].mean() < 0.95, group


def test_a_bundle_of_an_earlier_release_has_the_same_quantiles_for_every_fraction(fitted):
    values = fitted.as_json()
    values["quantiles"] = fitted.quantiles[:, :, 2].tolist()
    again = Predictive.of_json(values)
    assert again.quantiles.shape == fitted.quantiles.shape
    for group in range(FRACTION_GROUPS):
        np.testing.assert_allclose(again.quantiles[:, :, group], fitted.quantiles[:, :, 2], atol=1e-5)


def test_unknown_fractions_teach_nothing():
    prob, std, truth = simulated(600, 9)
    few = truth.copy()
    few[::2, gz2.QUESTIONS[9].columns] = np.nan
    one, other = predictive.fit(prob, std, few), predictive.fit(prob[1::2], std[1::2], truth[1::2])
    np.testing.assert_allclose(one.quantiles[9], other.quantiles[9], rtol=1e-5)
    whole = predictive.fit(prob, std, truth)
    np.testing.assert_array_equal(np.delete(one.quantiles, 9, 0), np.delete(whole.quantiles, 9, 0))


def test_residuals_in_units_of_the_scale_scatter_alike_whatever_they_are_made_of():
    rng = np.random.default_rng(10)
    prob = random_fractions(8000, seed=10)
    std = rng.uniform(0, 0.2, prob.shape).astype(np.float32)
    width = np.sqrt(0.05**2 + 0.1 * prob * (1 - prob) + 2.0 * std**2)
    truth = (prob + width * rng.normal(size=prob.shape)).astype(np.float32)
    fitted = predictive.fit(prob, std, truth)
    assert np.all(fitted.scale >= 0)
    scores = (truth - prob) / predictive.residual_scale(fitted.scale, prob, std)
    for kind in (prob * (1 - prob), std):
        for fifth in np.array_split(np.argsort(kind.ravel()), 5):
            # In fractions, the scatter of the fifths differs by a factor of 2.
            assert scores.ravel()[fifth].std() == pytest.approx(1, abs=0.2)


def test_conformal_ranks_have_the_finite_sample_correction():
    """The share of further scores below a quantile: k of n scores have the probability k / (n + 1)."""
    quantiles = predictive.conformal_quantiles(np.arange(1, 20))
    table = dict(zip(GRID, quantiles.tolist(), strict=True))
    assert (table[0.05], table[0.1], table[0.5], table[0.9], table[0.95]) == (1, 2, 10, 18, 19)
    # Too few scores for these tails: the most extreme ones.
    assert (table[0.005], table[0.995]) == (1, 19)


def test_quantiles_do_not_decrease_and_stay_in_the_unit_interval(fitted):
    prob, std, _ = simulated(300, 11)
    levels = np.linspace(0.001, 0.999, 60)
    values = fitted.at(prob, std, list(levels))
    assert values.shape == (60, 300, 37)
    assert values.dtype == np.float32
    assert np.all(np.diff(values, axis=0) >= 0)
    assert np.all((values >= 0) & (values <= 1))


def test_quantiles_between_the_tabulated_ones_are_interpolated(fitted):
    prob, std = np.full((1, 37), 0.5, np.float32), np.full((1, 37), 0.01, np.float32)
    low, between, high = fitted.at(prob, std, [0.6, 0.675, 0.75])
    np.testing.assert_allclose(between, (low + high) / 2, atol=1e-6)


def test_intervals_hold_the_prediction(fitted):
    prob, std, _ = simulated(300, 12)
    prob[:5], prob[5:10] = 0, 1
    for level in (0.05, 0.5, 0.9, 0.99):
        lo, hi = fitted.interval(prob, std, level)
        assert np.all((lo >= 0) & (lo <= prob) & (prob <= hi) & (hi <= 1))


def test_a_wider_level_is_a_wider_interval(fitted):
    prob, std, _ = simulated(300, 12)
    inner, outer = (fitted.interval(prob, std, level) for level in (0.5, 0.9))
    assert np.all((outer[0] <= inner[0]) & (inner[1] <= outer[1]))


def test_certain_predictions_have_no_width():
    prob, std, _ = simulated(5, 13)
    lo, hi = Predictive.certain().interval(prob, std, 0.9)
    np.testing.assert_array_equal(lo, prob)
    np.testing.assert_array_equal(hi, prob)


def test_json_gives_the_same_intervals_again(fitted):
    again = Predictive.of_json(json.loads(json.dumps(fitted.as_json())))
    assert again.as_json() == fitted.as_json()
    prob, std, _ = simulated(100, 14)
    for one, other in zip(fitted.interval(prob, std, 0.9), again.interval(prob, std, 0.9), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("name", ["scale", "quantiles"])
def test_a_calibration_that_lost_a_question_is_refused(fitted, name):
    values = fitted.as_json()
    values[name].pop()
    with pytest.raises(UsageError) as caught:
        Predictive.of_json(values)
    assert "\n" not in str(caught.value)


def test_a_calibration_that_lost_a_group_is_refused(fitted):
    values = fitted.as_json()
    for groups in values["quantiles"]:
        groups.pop()
    with pytest.raises(UsageError):
        Predictive.of_json(values)
    ragged = fitted.as_json()
    ragged["quantiles"][3].pop()
    with pytest.raises(UsageError):
        Predictive.of_json(ragged)


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: values.pop("scale"),
        lambda values: values["scale"].pop(),
        lambda values: values["scale"][3].pop(),
        lambda values: values["quantiles"].pop(),
        lambda values: values["quantiles"][2].pop(),
        lambda values: values["quantiles"][2][1].pop(),
        lambda values: values["quantiles"][2][1][3].pop(),
        lambda values: values["quantiles"][2][1][3].__setitem__(0, float("nan")),
        lambda values: values["quantiles"][2][1][3].__setitem__(0, "many"),
        lambda values: values["scale"][2].__setitem__(0, -1.0),
        lambda values: values.__setitem__("scale", None),
    ],
)
def test_a_damaged_calibration_is_refused_in_one_line(fitted, damage):
    values = copy.deepcopy(fitted.as_json())
    damage(values)
    with pytest.raises(UsageError, match="quantiles") as caught:
        Predictive.of_json(values)
    assert "\n" not in str(caught.value)


def polled(count, seed, *, volunteers=40):
    """Predictions, their spreads, and conditional fractions of simulated votes; NaN where nobody is asked.

    What the volunteers think differs from the prediction, and of a rare question there are few votes.
    """
    rng = np.random.default_rng(seed)
    raw = rng.gamma(0.7, size=(count, gz2.N_ANSWERS)) + 1e-2
    prob = gz2.cumulative(gz2.conditional(raw)).astype(np.float32)
    errors = rng.normal(0, 0.3, raw.shape)
    opinion = gz2.conditional(gz2.conditional(raw) * np.exp(errors))
    std = (0.3 * prob * (1 - prob)).astype(np.float32)
    votes = np.zeros((count, gz2.N_ANSWERS), int)
    for index in gz2.TOPOLOGICAL:
        question = gz2.QUESTIONS[index]
        asked = np.full(count, volunteers) if question.parent is None else votes[:, question.parent]
        votes[:, question.columns] = rng.multinomial(asked, opinion[:, question.columns])
    labels = labels_of((votes / volunteers).astype(np.float32))
    return prob, std, labels.conditional


@pytest.fixture(scope="module")
def asked():
    return predictive.fit(*polled(3000, 21), conditional=True)


def test_conditional_coverage_holds_in_each_group_of_the_share_asked(asked):
    before, sample = polled(3000, 21), polled(6000, 22)
    inside, groups = covered(asked, sample), predictive.share_groups(sample[0])
    fit_groups = predictive.share_groups(before[0])
    judged = 0
    for question in gz2.QUESTIONS:
        for group in range(GROUPS):
            taught, rows = (
                np.isfinite(truth[:, question.start]) & (found[:, question.start] == group)
                for truth, found in ((before[2], fit_groups), (sample[2], groups))
            )
            if taught.sum() >= FEWEST and rows.any():
                found = inside[rows, question.columns].mean()
                near = tolerance(taught.sum(), rows.sum())
                # Fractions of a few votes are a few values, of which an end may be one.
                assert 0.9 - near <= found <= 0.9 + near + 0.05, (question.name, group)
                judged += 1
    assert judged > 25


def test_a_conditional_fraction_of_few_votes_has_a_wider_interval(asked):
    few = np.tile(random_fractions(1, seed=3), (2, 1))
    few[0, 4], few[1, 4] = 0.31, 0.59  # of one group
    bar = gz2.QUESTIONS[2].columns
    few[:, bar] = few[:, [4]] * np.array([0.3, 0.7], np.float32)
    lo, hi = asked.interval(few, np.full_like(few, 0.01), 0.9)
    assert np.all((hi - lo)[0, bar] > (hi - lo)[1, bar])
    np.testing.assert_allclose(asked.expected(few)[:, bar], [[0.3, 0.7]] * 2, rtol=1e-5)


def test_scatter_of_few_votes_is_not_that_of_a_cumulative_fraction():
    """The scale of conditional fractions knows how many votes there are: it needs no groups for that."""
    prob, std, truth = polled(6000, 23)
    fitted = predictive.fit(prob, std, truth, conditional=True)
    scores = (truth - fitted.expected(prob)) / predictive.residual_scale(
        fitted.scale, prob, std, conditional=True
    )
    rows = np.isfinite(truth) & (gz2.parents(prob) < 1)
    for fifth in np.array_split(np.argsort(gz2.parents(prob)[rows]), 5)[1:]:
        assert scores[rows][fifth].std() == pytest.approx(1, abs=0.2)


def test_questions_that_all_are_asked_have_the_same_intervals_of_both_kinds():
    prob, std, truth = polled(2000, 24)
    everybody = [column for q in gz2.QUESTIONS if q.parent is None for column in range(q.start, q.stop)]
    one, other = (predictive.fit(prob, std, truth, conditional=c) for c in (False, True))
    for level in (0.5, 0.9):
        for end, same in zip(one.interval(prob, std, level), other.interval(prob, std, level), strict=True):
            np.testing.assert_allclose(end[:, everybody], same[:, everybody], atol=1e-4)


def test_conditional_intervals_hold_the_prediction_and_stay_in_the_unit_interval(asked):
    prob, std, _ = polled(300, 25)
    prob[:20, 1:] = 0
    for level in (0.05, 0.9, 0.99):
        lo, hi = asked.interval(prob, std, level)
        expected = gz2.conditional(prob)
        assert np.all((lo >= 0) & (lo <= expected) & (expected <= hi) & (hi <= 1))


def test_a_question_that_nobody_is_known_to_be_asked_may_have_any_fraction():
    prob, std, truth = polled(200, 26)
    truth[:, gz2.QUESTIONS[10].columns] = np.nan
    lo, hi = predictive.fit(prob, std, truth, conditional=True).interval(prob, std, 0.9)
    arms = gz2.QUESTIONS[10].columns
    assert np.all(lo[:, arms] == 0)
    assert np.all(hi[:, arms] == 1)


def test_json_keeps_what_kind_of_fractions_it_is_of(asked):
    again = Predictive.of_json(json.loads(json.dumps(asked.as_json())), conditional=True)
    prob, std, _ = polled(100, 27)
    for one, other in zip(asked.interval(prob, std, 0.9), again.interval(prob, std, 0.9), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
