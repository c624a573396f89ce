from dataclasses import replace

import numpy as np
import pytest

from gax_batch import gz2
from gax_batch.analysis import labels
from gax_batch.analysis.labels import Labels
from gax_batch.errors import UsageError


def made(cumulative, volunteers=40.0, definition="debiased", numbering="GalaxyID"):
    values = np.atleast_2d(np.asarray(cumulative, np.float32))
    ids = [str(i) for i in range(len(values))]
    return Labels.of_fractions(ids, values, volunteers, definition=definition, numbering=numbering)


@pytest.fixture
def one():
    """A galaxy with 20 of 40 votes for features; nobody answered about its bar, the bulge is unknown."""
    cumulative = np.zeros(gz2.N_ANSWERS)
    cumulative[:3] = [0.4, 0.5, 0.1]
    cumulative[3:5] = [0.1, 0.4]
    cumulative[7:9] = [0.3, 0.1]
    cumulative[9:13] = np.nan
    cumulative[13:15] = [0.25, 0.75]
    cumulative[15:18] = np.nan
    return made(cumulative)


def test_votes_follow_the_tree(one):
    assert one.reached[0, [0, 1, 3, 5]] == pytest.approx([40, 20, 16, 40])
    assert np.all(one.reached[0, [2, 4, 6]] == 0)
    np.testing.assert_allclose(one.fractions[0, 3:5], [0.2, 0.8], rtol=1e-6)
    # Equal ones where nobody answered, and where nothing is known.
    np.testing.assert_allclose(one.fractions[0, 5:7], 0.5)
    np.testing.assert_allclose(one.fractions[0, 9:13], 0.25)


def test_what_is_known_is_derived_from_the_fractions(one):
    assert one.known.sum() == gz2.N_ANSWERS - 7
    assert one.voted.tolist() == [True]
    assert one.complete.tolist() == [False]
    nothing = made(np.full(gz2.N_ANSWERS, np.nan))
    assert nothing.voted.tolist() == [False]
    assert nothing.volunteers.tolist() == [0]


def test_a_question_without_its_parent_was_asked_as_often_as_it_was_answered():
    cumulative = np.full(gz2.N_ANSWERS, np.nan)
    cumulative[7:9] = [0.2, 0.1]
    known = made(cumulative)
    assert known.share_asked[0, 3] == pytest.approx(0.3)
    assert known.reached[0, 3] == pytest.approx(12)
    assert np.isnan(known.share_asked[0, 0])


def test_conditional_fractions_are_unknown_where_nobody_was_asked():
    raw = np.zeros((3, gz2.N_ANSWERS), np.float32)
    raw[:, :3] = [0.5, 0.5, 0]
    raw[:, gz2.QUESTIONS[1].columns] = [0.1, 0.4]
    raw[2, gz2.QUESTIONS[1].columns] = np.nan
    found = Labels.of_fractions(
        ["a", "b", "c"], raw, 40, definition="debiased", numbering="GalaxyID"
    ).conditional
    np.testing.assert_allclose(found[0, gz2.QUESTIONS[1].columns], [0.2, 0.8], rtol=1e-6)
    np.testing.assert_allclose(found[2, :3], [0.5, 0.5, 0])
    assert np.isnan(found[2, gz2.QUESTIONS[1].columns]).all()
    assert np.isnan(found[:, gz2.QUESTIONS[9].columns]).all()


def test_rows_are_taken_and_tables_concatenated(one):
    other = replace(made(np.full((3, gz2.N_ANSWERS), 0.5)), ids=["a", "b", "c"])
    both = Labels.concatenate([one, other])
    assert both.ids == ["0", "a", "b", "c"]
    taken = both.take(np.array([2, 0]))
    assert taken.ids == ["b", "0"]
    np.testing.assert_array_equal(taken.cumulative[1], one.cumulative[0])
    assert (taken.definition, taken.numbering) == ("debiased", "GalaxyID")


@pytest.mark.parametrize("changed", [{"definition": "weighted"}, {"numbering": "asset_id"}])
def test_different_quantities_and_numberings_do_not_mix(one, changed):
    with pytest.raises(UsageError, match="|".join(changed.values())):
        Labels.concatenate([one, replace(one, **changed)])


def test_the_class_of_the_most_exceeded_weakest_condition_is_the_likeliest():
    cumulative = np.zeros((5, gz2.N_ANSWERS), np.float32)
    for row, conditions in enumerate(labels.CLASS_CONDITIONS):
        for column, limit in conditions:
            cumulative[row, column] = limit + 0.05
    # Class4.1 is larger than Class7.2, but misses its limit.
    cumulative[1, [0, 1, 4, 16, 7]] = 0.7, 0.3, 0.72, 0.56, 0.6
    assert labels.clear_class(cumulative).tolist() == [0, 1, 2, 3, 4]


def test_one_of_these_columns_is_the_largest():
    names = [gz2.CHALLENGE_COLUMNS[column] for column in labels.LARGEST_COLUMNS]
    assert names == ["Class1.1", "Class1.2", "Class1.3", "Class6.1", "Class6.2"]
    rng = np.random.default_rng(0)
    values = gz2.cumulative(gz2.conditional(rng.gamma(0.5, size=(200, gz2.N_ANSWERS)) + 1e-6))
    assert set(np.argmax(values, axis=1)) <= set(labels.LARGEST_COLUMNS)
