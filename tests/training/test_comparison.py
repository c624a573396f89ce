import numpy as np
import pytest
from labeled_galaxies import blurred, labels_of, partly, random_fractions

from gax_batch import gz2
from gax_batch.analysis.combine import Estimate
from training import card, comparison, report


def test_population_is_the_mean_over_draws_and_its_error_that_of_independent_passes():
    draws = random_fractions(4, 50)
    found = comparison.population(draws)
    each = draws.astype(np.float64).mean(axis=1)
    np.testing.assert_allclose(found.value, each.mean(axis=0))
    np.testing.assert_allclose(found.model_std, np.sqrt((1 + 1 / 4) * each.var(axis=0, ddof=1)))


def estimate(value, model_std):
    nothing = np.zeros(37)
    return Estimate(value, np.full(37, model_std), nothing, nothing, nothing)


def test_halves_that_scatter_as_stated_have_a_ratio_of_one_and_too_sure_ones_more():
    rng = np.random.default_rng(3)
    errors = rng.normal(0, 0.02, (400, 2, 37))
    for stated, expected in ((0.02, 1), (0.01, 2)):
        pairs = [comparison.compare_halves(estimate(a, stated), estimate(b, stated)) for a, b in errors]
        ratio = np.sqrt(np.mean([pair["all"]["ratio"] ** 2 for pair in pairs]))
        assert ratio == pytest.approx(expected, rel=0.03)
    assert list(pairs[0]["questions"]) == list(gz2.QUESTION_NAMES)
    assert list(pairs[0]["answers"]) == list(gz2.ANSWERS)


def test_a_question_has_its_own_ratio():
    values = np.zeros(37)
    values[gz2.QUESTIONS[2].columns] = 0.3 * np.sqrt(2)
    found = comparison.compare_halves(estimate(values, 0.1), estimate(np.zeros(37), 0.1))["questions"]
    ratios = [row["ratio"] for row in found.values()]
    assert ratios == pytest.approx([3 if index == 2 else 0 for index in range(11)])


def test_draws_that_no_galaxy_moves_are_not_divided_by_nothing():
    same = comparison.population(np.repeat(random_fractions(1, 20), 4, axis=0))
    assert comparison.compare_halves(same, same)["all"]["ratio"] == 0


def test_a_spread_that_orders_the_errors_has_a_smaller_area_than_one_that_does_not():
    truth = random_fractions(300)
    known = truth.copy()
    known[:100] = partly(truth[:100])
    labels = labels_of(known)
    # Galaxies differ in how much their predictions err.
    hard = np.arange(300) % 2 == 1
    easy, difficult = blurred(truth, 0.1, 1), blurred(truth, 1.5, 2)
    mean = np.where(hard[:, None], difficult, easy)
    width = np.where(hard, 0.05, 0.01)[:, None].astype(np.float32)
    honest = np.stack([mean - width, mean + width])
    blind = np.stack([mean - width[::-1], mean + width[::-1]])
    found = comparison.measure(labels, {"honest": honest, "blind": blind})
    assert found["honest"]["rmse"] == pytest.approx(found["blind"]["rmse"], abs=1e-4)
    assert found["honest"]["risk_coverage_area"] < found["blind"]["risk_coverage_area"]
    assert found["honest"]["rmse_of_surest_half"] < 0.5 * found["blind"]["rmse_of_surest_half"]
    assert found["honest"]["mean_std"] == pytest.approx(0.03, abs=1e-4)
    assert found["honest"]["draws"] == 2


def test_members_whose_spread_is_their_error_hold_more_than_members_that_agree():
    truth = random_fractions(200)
    labels = labels_of(truth)
    spread = report.spread(labels, blurred(truth, 0.3, 1, (8,)))
    agreeing = report.spread(labels, np.repeat(blurred(truth, 0.3, 1, (1,)), 8, axis=0))
    assert spread["coverage_of_draws_alone"] > 0.6 > 0.1 > agreeing["coverage_of_draws_alone"]


def test_numbers_are_kept_and_told(tmp_path):
    assert comparison.load(tmp_path) is None
    (tmp_path / comparison.FOLDER).mkdir()
    truth = random_fractions(30)
    halves = [comparison.population(random_fractions(4, 30, seed=seed)) for seed in (1, 2)]
    numbers = {
        "bundle": "x-1",
        "effort": 0.5,
        "members": 4,
        "models": comparison.measure(labels_of(truth), {"deep ensemble": blurred(truth, 0.3, 1, (4,))}),
    }
    comparison.save(tmp_path, numbers)
    assert comparison.load(tmp_path) == numbers
    without = "\n".join(card._baselines({"baselines": numbers}))
    numbers |= {"halves": comparison.compare_halves(*halves)}
    text = "\n".join(card._baselines({"baselines": numbers}))
    told = "\n".join(comparison.lines(numbers))
    for shown in (without, text, told):
        assert f"{numbers['models']['deep ensemble']['rmse']:.4f}" in shown
    for shown in (text, told):
        assert f"{numbers['halves']['questions'][gz2.QUESTION_NAMES[4]]['ratio']:.2f}" in shown
    assert "x-1" in without
    assert "model_std" not in without
    assert card._baselines({}) == []
