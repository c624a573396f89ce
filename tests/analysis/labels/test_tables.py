import re

import numpy as np
import pytest
from labeled_galaxies import write_table

from gax_batch import gz2
from gax_batch.analysis import labels
from gax_batch.analysis.labels.tables import DEBIASED_COLUMNS
from gax_batch.errors import UsageError


def fractions(count, seed=0):
    rng = np.random.default_rng(seed)
    return gz2.conditional(rng.gamma(0.8, size=(count, gz2.N_ANSWERS)) + 1e-3)


def named(values, ids):
    ids = ids or [str(100 + i) for i in range(len(values))]
    return zip(ids, values, strict=True)


def hart16(path, values, ids=None):
    header = ["asset_id", "total_classifications", *gz2.HART16_COLUMNS]
    return write_table(path, header, [[name, 40, *row] for name, row in named(values, ids)])


def debiased(path, values, ids=None):
    header = ["asset_id", *DEBIASED_COLUMNS]
    return write_table(path, header, [[name, *row] for name, row in named(values, ids)])


def challenge(path, values, ids=None, id_column="GalaxyID", columns=gz2.CHALLENGE_COLUMNS):
    places = [gz2.CHALLENGE_COLUMNS.index(name) for name in columns]
    rows = [[name, *(row[place] for place in places)] for name, row in named(values, ids)]
    return write_table(path, [id_column, *columns], rows)


def numbers(error):
    """The whole numbers of each line of a message."""
    return [re.findall(r"\b\d+\b", line) for line in str(error).splitlines()]


def test_hart16_and_the_challenge_agree_about_the_same_galaxies(tmp_path):
    values = fractions(5)
    first = labels.read_labels(hart16(tmp_path / "a.csv", values))
    second = labels.read_labels(challenge(tmp_path / "b.csv", gz2.cumulative(values)))
    np.testing.assert_allclose(first.fractions, second.fractions, atol=1e-6)
    np.testing.assert_allclose(first.reached, second.reached, rtol=1e-5)
    assert first.voted.all()
    assert np.all(first.classes == -1)


def test_a_table_has_the_definition_and_the_numbering_of_its_columns(tmp_path):
    values = fractions(3)
    cumulative = gz2.cumulative(values)
    read = [
        labels.read_labels(uri)
        for uri in (
            hart16(tmp_path / "a.csv", values),
            debiased(tmp_path / "b.csv", values),
            challenge(tmp_path / "c.csv", cumulative),
            challenge(tmp_path / "d.csv", cumulative, id_column="asset_id"),
        )
    ]
    assert [(table.definition, table.numbering) for table in read] == [
        ("weighted", "asset_id"),
        ("debiased", "asset_id"),
        ("debiased", "GalaxyID"),
        ("weighted", "asset_id"),
    ]


def test_a_table_of_both_definitions_is_read_as_asked_for(tmp_path):
    weighted, corrected = fractions(2), fractions(2, seed=1)
    header = ["asset_id", "total_classifications", *gz2.HART16_COLUMNS, *DEBIASED_COLUMNS]
    rows = [[str(i), 40, *weighted[i], *corrected[i]] for i in range(2)]
    path = write_table(tmp_path / "both.csv", header, rows)
    for definition, expected in (("weighted", weighted), ("debiased", corrected)):
        read = labels.read_labels(path, definition)
        assert read.definition == definition
        np.testing.assert_allclose(read.cumulative, gz2.cumulative(expected), atol=1e-6)


def test_debiased_fractions_need_not_sum_to_1(tmp_path):
    values = fractions(2)
    scaled = values.copy()
    for question in gz2.QUESTIONS:
        scaled[:, question.columns] *= 0.7
    read = labels.read_labels(debiased(tmp_path / "d.csv", scaled))
    np.testing.assert_allclose(read.cumulative, gz2.cumulative(values), atol=1e-6)


def test_unanswered_questions_are_unknown_where_many_would_have_been_asked(tmp_path):
    values = fractions(2)
    values[:, :3] = [[0.5, 0.4, 0.1], [0.98, 0.01, 0.01]]
    values[:, gz2.QUESTIONS[1].columns] = 0
    read = labels.read_labels(debiased(tmp_path / "d.csv", values))
    # Edge-on or not, and with it bar, arms and bulge, is unknown of the first; zero of the second.
    below = [i for q in (1, 2, 3, 4, 8, 9, 10) for i in range(*gz2.QUESTIONS[q].columns.indices(37)[:2])]
    assert np.isnan(read.cumulative[0, below]).all()
    assert np.all(read.cumulative[1, below] == 0)
    assert np.all(read.reached[:, [1, 2, 3]] == 0)


def test_some_whole_questions_of_the_challenge_are_read_as_published(tmp_path):
    cumulative = gz2.cumulative(fractions(4))
    chosen = [0, 1, 5, 9]
    columns = [
        gz2.CHALLENGE_COLUMNS[i] for q in chosen for i in range(gz2.N_ANSWERS)[gz2.QUESTIONS[q].columns]
    ]
    read = labels.read_labels(challenge(tmp_path / "some.csv", cumulative, columns=columns))
    known = np.array([name in columns for name in gz2.CHALLENGE_COLUMNS])
    assert np.array_equal(read.known, np.tile(known, (4, 1)))
    # Also arms, although the answer that leads to them is not in the table.
    np.testing.assert_allclose(read.cumulative[:, known], cumulative[:, known], atol=1e-6)
    assert not read.complete.any()


def test_a_question_of_which_answers_lack_is_refused(tmp_path):
    path = challenge(tmp_path / "p.csv", gz2.cumulative(fractions(2)), columns=["Class1.1", "Class1.2"])
    with pytest.raises(UsageError, match=r"Class1\.3"):
        labels.read_labels(path)


def test_classes_are_facts_without_votes(tmp_path):
    rows = [["1", "spiral", 0], ["2", "", 1], ["3", "round", 1], ["4", "spiral", 1]]
    read = labels.read_labels(write_table(tmp_path / "c.csv", ["galaxy_id", "class5", "strict"], rows))
    assert read.classes.tolist() == [4, -1, 0, 4]
    assert read.strict.tolist() == [False, True, True, True]
    assert not read.voted.any()
    # Without the column, spirals meet the stricter threshold.
    plain = labels.read_labels(
        write_table(tmp_path / "d.csv", ["galaxy_id", "class5"], [row[:2] for row in rows])
    )
    assert plain.strict.all()


def test_galaxies_of_none_of_the_classes(tmp_path):
    read = labels.read_labels(write_table(tmp_path / "n.csv", ["galaxy_id"], [["1"], ["7"]]))
    assert read.ids == ["1", "7"]
    assert np.all(read.classes == labels.NO_CLASS)


def test_the_largest_fraction(tmp_path):
    rows = [["1", "Class6.2"], ["2", "Class1.1"], ["3", ""]]
    read = labels.read_labels(write_table(tmp_path / "l.csv", ["GalaxyID", "argmax"], rows))
    assert read.largest.tolist() == [4, 0, -1]
    assert np.all(read.classes == -1)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        pytest.param(0, "", id="missing"),
        pytest.param(0, "much", id="no number"),
        pytest.param(4, -0.2, id="negative"),
        pytest.param(4, 1.7, id="above 1"),
        pytest.param(0, 0.9, id="a sum that does not fit the tree"),
    ],
)
@pytest.mark.parametrize("kind", [hart16, challenge])
def test_bad_fractions_are_counted_and_refused(tmp_path, kind, column, value):
    values = fractions(4)
    values[1, :3] = [0.3, 0.6, 0.1]
    rows = (gz2.cumulative(values) if kind is challenge else values).tolist()
    rows[1][column] = value
    with pytest.raises(UsageError, match=r"bad\.csv") as caught:
        labels.read_labels(kind(tmp_path / "bad.csv", rows))
    assert ("1", "101") in {(found[0], found[-1]) for found in numbers(caught.value) if found}


def test_answers_that_contradict_the_tree_are_refused(tmp_path):
    cumulative = gz2.cumulative(fractions(3))
    cumulative[2, :3] = [0.1, 0.8, 0.1]
    cumulative[2, 3:5] = 0
    with pytest.raises(UsageError, match=r"\b1 .*\b102\b"):
        labels.read_labels(challenge(tmp_path / "bad.csv", cumulative))
    # Answers of everybody are needed in a debiased table too.
    values = fractions(3)
    values[1, :3] = 0
    with pytest.raises(UsageError, match=r"\b1 .*\b101\b"):
        labels.read_labels(debiased(tmp_path / "worse.csv", values))


def test_every_kind_of_fault_is_told_at_once(tmp_path):
    values = fractions(6).tolist()
    values[0][0], values[1][4] = "", -1
    path = hart16(tmp_path / "bad.csv", values, ["1", "2", "3", "3", "3", "3"])
    with pytest.raises(UsageError, match=r"bad\.csv") as caught:
        labels.read_labels(path)
    duplicated, missing, negative = ["3", "3", "3", "3"], ["1", "1"], ["1", "2"]
    assert all(kind in numbers(caught.value) for kind in (duplicated, missing, negative))


@pytest.mark.parametrize(
    ("header", "row"),
    [
        (["galaxy_id", "class5"], ["1", "square"]),
        (["galaxy_id", "class5", "strict"], ["1", "spiral", "maybe"]),
        (["GalaxyID", "argmax"], ["1", "Class2.1"]),
        (["galaxy_id"], [""]),
    ],
)
def test_bad_facts_are_counted_and_refused(tmp_path, header, row):
    with pytest.raises(UsageError, match=r"bad\.csv(.|\n)*\b1 "):
        labels.read_labels(write_table(tmp_path / "bad.csv", header, [row]))


def test_unknown_tables_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"x\.csv.*\b2\b.*asset_id"):
        labels.read_labels(write_table(tmp_path / "x.csv", ["a", "galaxy_id"], [["1", "2"]]))
    with pytest.raises(UsageError, match=r"absent\.csv"):
        labels.read_labels(str(tmp_path / "absent.csv"))
    with pytest.raises(UsageError, match=r"z\.csv"):
        labels.read_labels(write_table(tmp_path / "z.csv", ["galaxy_id", "class5"], []))


def test_published_tables_of_galaxy_zoo_2_are_read(shared_data):
    read = labels.read_labels(str(shared_data / "gz2" / "hart16_votes.csv"))
    same = labels.read_labels(str(shared_data / "gz2" / "kaggle37_fractions.csv"))
    assert len(read) == 748
    assert read.ids == same.ids
    assert read.definition == same.definition == "weighted"
    np.testing.assert_allclose(read.cumulative, same.cumulative, atol=1e-5)
    corrected = labels.read_labels(str(shared_data / "gz2" / "hart16_debiased.csv"))
    assert corrected.definition == "debiased"
    assert corrected.complete.sum() == 740
    # Debiasing lowers the fraction of smooth galaxies.
    assert np.mean(read.cumulative[:, 0] - corrected.cumulative[:, 0]) > 0.05


def test_published_tables_of_the_challenge_agree(shared_data):
    names = ("solutions_37", "solutions_17", "class5", "class5_none", "argmax")
    tables = [labels.read_labels(str(shared_data / "challenge" / f"{name}.csv")) for name in names]
    assert [table.complete.sum() for table in tables[:2]] == [588, 0]
    assert np.all(tables[1].known.sum(axis=1) == 17)
    tables.append(labels.read_labels(str(shared_data / "kaggle" / "class5.csv")))
    joined = labels.join(tables)
    assert len(joined) == 31_997
    assert joined.voted.sum() == 588 + 3_463
    assert np.bincount(joined.classes).tolist() == [7943, 7585, 546, 3683, 7062, 5178]
    assert (~joined.strict).sum() == 1_098
