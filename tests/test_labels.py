import csv

import numpy as np
import pytest

from gax_batch import labels, tree
from gax_batch.errors import UsageError


def fractions(count, seed=0):
    rng = np.random.default_rng(seed)
    return tree.conditional(rng.gamma(0.8, size=(count, tree.N_ANSWERS)) + 1e-3)


def write(path, header, rows):
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return str(path)


def hart16(path, values, ids=None):
    ids = ids or [str(100 + i) for i in range(len(values))]
    header = ["asset_id", "total_classifications", *tree.HART16_COLUMNS]
    return write(path, header, [[name, 40, *row] for name, row in zip(ids, values, strict=True)])


def challenge(path, values, ids=None):
    ids = ids or [str(100 + i) for i in range(len(values))]
    header = ["GalaxyID", *tree.CHALLENGE_COLUMNS]
    return write(path, header, [[name, *row] for name, row in zip(ids, values, strict=True)])


def test_hart16_and_the_challenge_say_the_same_of_the_same_galaxies(tmp_path):
    values = fractions(5)
    first = labels.read_labels(hart16(tmp_path / "a.csv", values))
    second = labels.read_labels(challenge(tmp_path / "b.csv", tree.cumulative(values)))
    np.testing.assert_allclose(first.fractions, second.fractions, atol=1e-6)
    np.testing.assert_allclose(first.reached, second.reached, rtol=1e-5)
    assert first.voted.all()
    assert np.all(first.classes == -1)


def test_votes_follow_the_tree():
    weighted = np.zeros((1, tree.N_ANSWERS))
    weighted[0, :3] = [0.4, 0.5, 0.1]
    weighted[0, 3:5] = [0.2, 0.7]  # published fractions do not always sum to 1
    weighted[0, 13:15] = [0.25, 0.75]
    found, reached = labels.votes(weighted, np.array([40.0]))
    np.testing.assert_allclose(found[0, 3:5], [2 / 9, 7 / 9], rtol=1e-6)
    np.testing.assert_allclose(reached[0, [0, 1, 5]], [40, 20, 40], rtol=1e-6)
    # Nobody answered the bar's question, and the roundness's.
    assert np.all(reached[0, [2, 6]] == 0)
    np.testing.assert_allclose(found[0, 5:7], 0.5)


def test_clear_classes_are_facts_without_votes(tmp_path):
    path = write(tmp_path / "c.csv", ["galaxy_id", "class5"], [["1", "spiral"], ["2", ""], ["3", "round"]])
    read = labels.read_labels(path)
    assert read.classes.tolist() == [4, -1, 0]
    assert not read.voted.any()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, "", "1 with missing fractions: 101"),
        (0, "much", "1 with missing fractions: 101"),
        (4, -0.2, "1 with negative fractions: 101"),
        (4, 1.7, "1 with fractions above 1: 101"),
        (0, 0.9, "1 with sums that do not fit the tree: 101"),
    ],
)
@pytest.mark.parametrize("kind", [hart16, challenge])
def test_bad_fractions_are_counted_and_refused(tmp_path, kind, column, value, message):
    values = fractions(4)
    values[1, :3] = [0.3, 0.6, 0.1]
    rows = (tree.cumulative(values) if kind is challenge else values).tolist()
    rows[1][column] = value
    with pytest.raises(UsageError, match=message):
        labels.read_labels(kind(tmp_path / "bad.csv", rows))


def test_every_kind_of_fault_is_told_at_once(tmp_path):
    values = fractions(6).tolist()
    values[0][0], values[1][4] = "", -1
    path = hart16(tmp_path / "bad.csv", values, ["1", "2", "3", "3", "3", "3"])
    with pytest.raises(UsageError, match=r"(?s)3 with duplicated ids: 3, 3, 3.*missing.*1 with negative"):
        labels.read_labels(path)


def test_unknown_tables_and_classes_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no known table"):
        labels.read_labels(write(tmp_path / "x.csv", ["a"], [["1"]]))
    with pytest.raises(UsageError, match="1 with unknown classes: 1"):
        labels.read_labels(write(tmp_path / "y.csv", ["galaxy_id", "class5"], [["1", "square"]]))
    with pytest.raises(UsageError, match="no table"):
        labels.read_labels(str(tmp_path / "absent.csv"))
    with pytest.raises(UsageError, match="holds no galaxies"):
        labels.read_labels(write(tmp_path / "z.csv", ["galaxy_id", "class5"], []))


def test_the_likeliest_path_is_the_class():
    cumulative = np.zeros((5, tree.N_ANSWERS), np.float32)
    for row, column in enumerate(labels.CLASS_COLUMNS):
        cumulative[row, column] = 0.5
    assert labels.clear_class(cumulative).tolist() == [0, 1, 2, 3, 4]


def test_published_tables_are_read(shared_data):
    read = labels.read_labels(str(shared_data / "gz2" / "hart16_votes.csv"))
    assert len(read) == 748
    table = np.genfromtxt(shared_data / "gz2" / "kaggle37_fractions.csv", delimiter=",", skip_header=1)
    published = {str(int(row[0])): row[1:] for row in table}
    expected = np.array([published[name] for name in read.ids])
    assert tree.inconsistency(read.cumulative) < 1e-5
    assert np.median(np.abs(read.cumulative - expected)) < 0.002
    facts = labels.read_labels(str(shared_data / "kaggle" / "class5.csv"))
    assert np.bincount(facts.classes + 1).tolist() == [3450, 329, 324, 27, 165, 668]
