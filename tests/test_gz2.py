"""The decision tree: its shape, its arithmetic, its names."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gax_batch import gz2
from gax_batch.errors import UsageError

fractions = hnp.arrays(np.float64, (3, gz2.N_ANSWERS), elements=st.floats(0, 1, width=32))


def normalized(values: np.ndarray) -> np.ndarray:
    return gz2.conditional(values)


def test_shape_is_that_of_galaxy_zoo_2():
    assert [len(q.answers) for q in gz2.QUESTIONS] == [3, 2, 2, 2, 4, 2, 3, 7, 3, 3, 6]
    assert [q.parent for q in gz2.QUESTIONS] == [None, 1, 4, 4, 4, None, 0, 13, 3, 7, 7]
    assert [q.start for q in gz2.QUESTIONS] == [0, 3, 5, 7, 9, 13, 15, 18, 25, 28, 31]
    assert gz2.N_ANSWERS == 37


def test_names_follow_hart_2016_and_the_challenge():
    assert gz2.ANSWERS[0] == "t01_smooth_or_features_a01_smooth"
    assert gz2.ANSWERS[24] == "t08_odd_feature_a38_dust_lane"
    assert gz2.ANSWERS[36] == "t11_arms_number_a37_cant_tell"
    assert gz2.HART16_COLUMNS[3] == "t02_edgeon_a04_yes_weighted_fraction"
    assert gz2.CHALLENGE_COLUMNS[0] == "Class1.1"
    assert gz2.CHALLENGE_COLUMNS[-1] == "Class11.6"
    assert len(set(gz2.ANSWERS)) == len(set(gz2.CHALLENGE_COLUMNS)) == 37


def test_every_parent_comes_before_its_children_in_topological_order():
    seen: set[int] = set()
    for index in gz2.TOPOLOGICAL:
        question = gz2.QUESTIONS[index]
        assert question.parent is None or question.parent in seen
        seen.update(range(question.start, question.stop))
    assert seen == set(range(37))


@given(fractions)
@settings(max_examples=60, deadline=None)
def test_cumulative_fractions_satisfy_every_sum(values):
    cumulative = gz2.cumulative(normalized(values))
    assert gz2.inconsistency(cumulative) < 1e-12
    assert (cumulative >= 0).all()
    assert (cumulative <= 1 + 1e-12).all()


@given(fractions)
@settings(max_examples=60, deadline=None)
def test_conditional_inverts_cumulative_wherever_the_question_was_reached(values):
    conditional = normalized(values)
    cumulative = gz2.cumulative(conditional)
    again = gz2.conditional(cumulative)
    for question in gz2.QUESTIONS:
        reached = np.ones(3, bool) if question.parent is None else cumulative[:, question.parent] > 1e-9
        np.testing.assert_allclose(
            again[reached][:, question.columns],
            conditional[reached][:, question.columns],
            rtol=1e-6,
            atol=1e-9,
        )


def test_unreached_questions_get_equal_fractions():
    conditional = gz2.conditional(np.zeros((1, 37)))
    assert conditional[0, gz2.QUESTIONS[4].columns] == pytest.approx([0.25] * 4)


def test_inconsistency_sees_a_broken_sum():
    cumulative = gz2.cumulative(normalized(np.ones((1, 37))))
    cumulative[0, 15] += 0.125
    assert gz2.inconsistency(cumulative) == pytest.approx(0.125)


def galaxy(**answers: str) -> np.ndarray:
    """Conditional fractions that put 0.9 on the named answer of each question and share out the rest."""
    values = np.full(37, 0.0)
    for question in gz2.QUESTIONS:
        block = np.full(len(question.answers), 0.1 / (len(question.answers) - 1))
        wanted = answers.get(question.name.split("_")[0])
        if wanted:
            block[[a.split("_")[0] for a in question.answers].index(wanted)] = 0.9
        values[question.columns] = block / block.sum()
    return gz2.cumulative(values[None])


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({"t01": "a01", "t07": "a16", "t06": "a15"}, "Er"),
        ({"t01": "a01", "t07": "a18", "t06": "a15"}, "Ec"),
        ({"t01": "a02", "t02": "a04", "t09": "a26", "t06": "a15"}, "Seb"),
        ({"t01": "a02", "t02": "a05", "t03": "a07", "t05": "a11", "t04": "a09", "t06": "a15"}, "Sc"),
        (
            {
                "t01": "a02",
                "t02": "a05",
                "t03": "a06",
                "t05": "a12",
                "t04": "a08",
                "t11": "a32",
                "t10": "a29",
                "t06": "a15",
            },
            "SBb2m",
        ),
        (
            {
                "t01": "a02",
                "t02": "a05",
                "t03": "a07",
                "t05": "a13",
                "t04": "a08",
                "t11": "a37",
                "t10": "a30",
                "t06": "a14",
                "t08": "a38",
            },
            "Sa?l(u)",
        ),
        ({"t01": "a01", "t07": "a17", "t06": "a14", "t08": "a24"}, "Ei(m)"),
        ({"t01": "a03", "t06": "a14"}, "A"),
    ],
)
def test_gz2_class_spells_the_most_likely_path(answers, expected):
    assert gz2.gz2_class(galaxy(**answers)) == [expected]


def test_gz2_class_is_the_published_one_from_debiased_fractions_alone(shared_data):
    """The class string is defined by debiased fractions (Willett et al. 2013, appendix A)."""

    def read(name: str) -> dict[str, dict[str, str]]:
        with (shared_data / "gz2" / name).open() as file:
            return {row["asset_id"]: row for row in csv.DictReader(file)}

    weighted, debiased = read("hart16_votes.csv"), read("hart16_debiased.csv")
    published = [row["gz2_class"] for row in weighted.values()]

    def agreement(fractions: list[list[float]]) -> float:
        found = gz2.gz2_class(gz2.cumulative(gz2.conditional(np.array(fractions))))
        return float(np.mean([ours == theirs for ours, theirs in zip(found, published, strict=True)]))

    assert len(published) == 748
    assert agreement([[float(debiased[i][f"{a}_debiased"]) for a in gz2.ANSWERS] for i in weighted]) == 1
    assert agreement([[float(row[c]) for c in gz2.HART16_COLUMNS] for row in weighted.values()]) < 0.6


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 0.8),
        # Spiral or not is asked of a disk that is not edge-on, ...
        ({"t04_spiral": (0.55, 0.45)}, 0.1),
        # ... and the second of several answers counts, not the sum of the others.
        ({"t11_arms_number": (0.1, 0.4, 0.3, 0.1, 0.1, 0)}, 0.1),
        ({"t01_smooth_or_features": (0.4, 0.6, 0)}, 0.2),
        ({"t06_odd": (0.48, 0.52)}, 0.04),
        # Questions that are not on the path do not count, ...
        ({"t07_rounded": (0.3, 0.4, 0.3), "t09_bulge_shape": (0.4, 0.3, 0.3)}, 0.8),
        ({"t08_odd_feature": (0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1)}, 0.8),
        # ... but those that become part of it do: two odd features are as likely.
        ({"t06_odd": (0.9, 0.1), "t08_odd_feature": (0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.1)}, 0),
        # A star's string has no other letter.
        ({"t01_smooth_or_features": (0.1, 0.3, 0.6), "t06_odd": (0.5, 0.5)}, 0.3),
    ],
)
def test_the_margin_is_the_smallest_lead_on_the_path(changes, expected):
    fractions = gz2.conditional(
        galaxy(t01="a02", t02="a05", t03="a07", t04="a08", t05="a11", t06="a15", t10="a28", t11="a32")
    )
    for name, values in changes.items():
        fractions[0, gz2.find_question(name).columns] = values
    assert gz2.gz2_class_margin(fractions) == pytest.approx([expected])
    assert gz2.gz2_class_margin(gz2.cumulative(fractions)) == pytest.approx([expected])


@given(fractions, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_changes_of_less_than_half_the_margin_leave_the_class(values, seed):
    before = normalized(values)
    margin = gz2.gz2_class_margin(before)
    assert ((margin >= 0) & (margin <= 1 + 1e-12)).all()
    moved = np.random.default_rng(seed).uniform(-0.499, 0.499, before.shape) * margin[:, None]
    assert gz2.gz2_class(before + moved) == gz2.gz2_class(before)


def test_the_margin_keeps_the_dtype_and_is_that_of_each_galaxy_alone():
    prob = gz2.cumulative(gz2.conditional(np.random.default_rng(3).random((50, 37)).astype(np.float32)))
    margin = gz2.gz2_class_margin(prob)
    assert margin.dtype == np.float32
    assert margin.tolist() == [gz2.gz2_class_margin(row[None])[0] for row in prob]
    assert gz2.gz2_class_margin(prob[:0]).shape == (0,)


def test_the_published_columns_agree_with_the_published_votes(shared_data):
    """Hart et al.'s conditional votes, multiplied down the tree, are the challenge's columns."""
    with (shared_data / "gz2" / "hart16_votes.csv").open() as file:
        votes = list(csv.DictReader(file))
    with (shared_data / "gz2" / "kaggle37_fractions.csv").open() as file:
        challenge = list(csv.DictReader(file))
    conditional = np.array([[float(row[c] or 0) for c in gz2.HART16_COLUMNS] for row in votes])
    expected = np.array([[float(row[c]) for c in gz2.CHALLENGE_COLUMNS] for row in challenge])
    # The published numbers are rounded to three digits, twice.
    np.testing.assert_allclose(gz2.cumulative(conditional), expected, atol=2e-3)


def test_the_most_likely_path_is_that_of_the_class_string():
    raw = np.random.default_rng(5).gamma(0.5, size=(200, gz2.N_ANSWERS)) + 1e-3
    prob = gz2.cumulative(gz2.conditional(raw))
    path = gz2.most_likely(prob)
    for question in gz2.QUESTIONS:
        reached = True if question.parent is None else path[:, question.parent]
        np.testing.assert_array_equal(path[:, question.columns].sum(axis=1), np.broadcast_to(reached, 200))
    names = gz2.gz2_class(prob)
    assert [name.startswith("E") for name in names] == path[:, 0].tolist()
    assert [name.startswith("Se") for name in names] == path[:, 3].tolist()
    assert [name.startswith("SB") for name in names] == path[:, 5].tolist()


def test_parents_are_the_answers_that_lead_to_a_question():
    prob = gz2.cumulative(gz2.conditional(np.ones((2, gz2.N_ANSWERS))))
    parents = gz2.parents(prob)
    for question in gz2.QUESTIONS:
        expected = 1.0 if question.parent is None else prob[:, question.parent, None]
        np.testing.assert_array_equal(parents[:, question.columns] - expected, 0)


@pytest.mark.parametrize("name", ["t04", "t04_spiral"])
def test_a_question_is_found_by_its_name_or_number(name):
    assert gz2.find_question(name) is gz2.QUESTIONS[3]


def test_an_unknown_question_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="'t03_bar'"):
        gz2.find_question("t3_bars")
