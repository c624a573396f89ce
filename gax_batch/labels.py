"""What is known of labelled galaxies: vote fractions, or only the fact of which threshold they pass.

Three tables are read as published: Hart et al. 2016's weighted fractions (MNRAS 461, 3663), the Galaxy
Zoo challenge's CSV (`GalaxyID, Class1.1 ... Class11.6`), and a table of clear classes (`galaxy_id,
class5`). A bad table is summed up by kind of fault, with counts and the first examples, and refused.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gax_batch import storage, tree
from gax_batch.errors import UsageError

Float = npt.NDArray[np.float32]
CLEAR_CLASSES = ("round", "in_between", "cigar", "edge_on", "spiral")
# A class is a threshold on one cumulative fraction of the challenge (0.5 of Class7.1, 7.2 and 7.3, 0.602
# of Class2.1, 0.69 of Class4.1); the other conditions that define it (smooth >= 0.469, features >= 0.43,
# face-on >= 0.715) nearly follow from that one by the tree's sums.
CLASS_COLUMNS = (15, 16, 17, 3, 7)
# The challenge publishes no numbers of votes; about 40 people looked at each galaxy (Willett et al. 2013).
CHALLENGE_VOTES = 40.0
# Published fractions are rounded to three digits, of up to seven answers, and now and then lack a vote.
SUM_TOLERANCE = 0.03
EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of N galaxies, row by row, in the order of the table.

    Attributes:
        ids: the galaxies' identifiers, no two alike.
        fractions: `[N, 37]` conditional vote fractions, each question's answers summing to 1; equal
            ones where nothing is known.
        reached: `[N, 11]` votes that reached each question; zero where nothing is known.
        classes: int8 `[N]`, index into `CLEAR_CLASSES`, -1 where no fact is known.
    """

    ids: list[str]
    fractions: Float
    reached: Float
    classes: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def cumulative(self) -> Float:
        """`[N, 37]` cumulative vote fractions: what the models predict."""
        return np.asarray(tree.cumulative(self.fractions), np.float32)

    @property
    def voted(self) -> npt.NDArray[np.bool_]:
        """`[N]`: whether there are votes."""
        return np.asarray(self.reached[:, 0] > 0)

    def take(self, rows: npt.NDArray[np.intp]) -> "Labels":
        """Some rows, in the order given."""
        ids = [self.ids[int(i)] for i in rows]
        return Labels(ids, self.fractions[rows], self.reached[rows], self.classes[rows])

    @classmethod
    def concatenate(cls, parts: Sequence["Labels"]) -> "Labels":
        """The rows of several tables, in order; at least one."""
        return cls(
            [name for part in parts for name in part.ids],
            np.concatenate([part.fractions for part in parts]),
            np.concatenate([part.reached for part in parts]),
            np.concatenate([part.classes for part in parts]),
        )


def read_labels(uri: str) -> Labels:
    """Read a table of labels; its header says which of the three kinds it is.

    Raises:
        UsageError: it cannot be read, is of no known kind, or holds faults (all of them are counted).
    """
    place = storage.normalize_uri(uri)
    try:
        text = storage.read_bytes(place).decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UsageError(f"no table of labels at {uri}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{uri} is not a CSV file in UTF-8") from None
    reader = csv.DictReader(io.StringIO(text))
    header, rows = list(reader.fieldnames or ()), list(reader)
    if not rows:
        raise UsageError(f"{uri} holds no galaxies")
    if {"asset_id", "total_classifications", *tree.HART16_COLUMNS} <= set(header):
        return _hart16(uri, rows)
    if {"GalaxyID", *tree.CHALLENGE_COLUMNS} <= set(header):
        return _challenge(uri, rows)
    if {"galaxy_id", "class5"} <= set(header):
        return _clear(uri, rows)
    raise UsageError(
        f"{uri} is no known table of labels: expected the columns of Hart et al. 2016 (asset_id, "
        f"total_classifications, {tree.HART16_COLUMNS[0]}, ...), of the Galaxy Zoo challenge (GalaxyID, "
        "Class1.1 ... Class11.6) or galaxy_id and class5"
    )


def clear_class(cumulative: Float) -> npt.NDArray[np.intp]:
    """Which of the five clear classes each galaxy is most likely to be: the likeliest path.

    Args:
        cumulative: `[N, 37]` fractions.

    Returns:
        `[N]` index into `CLEAR_CLASSES`.
    """
    return np.asarray(np.argmax(cumulative[:, list(CLASS_COLUMNS)], axis=1))


def votes(weighted: npt.NDArray[np.float64], classifications: npt.NDArray[np.float64]) -> tuple[Float, Float]:
    """Normalized conditional fractions and the votes behind them.

    Args:
        weighted: `[N, 37]` weighted fractions as published, conditional or cumulative.
        classifications: `[N]` number of people who classified the galaxy.

    Returns:
        Fractions `[N, 37]` (equal ones where nobody answered) and votes that reached each question
        `[N, 11]` (zero where nobody answered).
    """
    fractions = tree.conditional(weighted)
    cumulative = tree.cumulative(fractions)
    reached = np.empty((len(weighted), tree.N_QUESTIONS))
    for index, question in enumerate(tree.QUESTIONS):
        share = 1.0 if question.parent is None else cumulative[:, question.parent]
        answered = weighted[:, question.columns].sum(axis=1) > 0
        reached[:, index] = classifications * share * answered
    return fractions.astype(np.float32), reached.astype(np.float32)


def _hart16(uri: str, rows: list[dict[str, str]]) -> Labels:
    ids = [row["asset_id"] for row in rows]
    weighted = _numbers(rows, tree.HART16_COLUMNS)
    counts = _numbers(rows, ("total_classifications",))[:, 0]
    # A question that nobody was asked has only zeros.
    expected = np.array(
        [(weighted[:, q.columns].sum(axis=1) > 0).astype(float) for q in tree.QUESTIONS], np.float64
    ).T
    for index, question in enumerate(tree.QUESTIONS):
        if question.parent is None:
            expected[:, index] = 1.0
    _refuse_faults(uri, ids, _faults(ids, weighted, expected) | {"no classifications": ~(counts > 0)})
    return _voted(ids, weighted, counts)


def _challenge(uri: str, rows: list[dict[str, str]]) -> Labels:
    ids = [row["GalaxyID"] for row in rows]
    weighted = _numbers(rows, tree.CHALLENGE_COLUMNS)
    expected = np.stack(
        [np.ones(len(rows)) if q.parent is None else weighted[:, q.parent] for q in tree.QUESTIONS], axis=1
    )
    # Where nobody went on to a question, its answers are zero whatever its parent is.
    for index, question in enumerate(tree.QUESTIONS):
        unanswered = weighted[:, question.columns].sum(axis=1) == 0
        expected[:, index] *= ~unanswered if question.parent is not None else 1
    _refuse_faults(uri, ids, _faults(ids, weighted, expected))
    return _voted(ids, weighted, np.full(len(rows), CHALLENGE_VOTES))


def _clear(uri: str, rows: list[dict[str, str]]) -> Labels:
    ids = [row["galaxy_id"] for row in rows]
    known = {name: index for index, name in enumerate(CLEAR_CLASSES)} | {"": -1}
    names = [row["class5"] or "" for row in rows]
    unknown = np.array([name not in known for name in names])
    _refuse_faults(uri, ids, {"duplicated ids": _duplicated(ids), "unknown classes": unknown})
    count = len(rows)
    even, _ = votes(np.zeros((count, tree.N_ANSWERS)), np.zeros(count))
    classes = np.array([known[name] for name in names], np.int8)
    return Labels(ids, even, np.zeros((count, tree.N_QUESTIONS), np.float32), classes)


def _voted(ids: list[str], weighted: npt.NDArray[np.float64], counts: npt.NDArray[np.float64]) -> Labels:
    fractions, reached = votes(weighted, counts)
    return Labels(ids, fractions, reached, np.full(len(ids), -1, np.int8))


def _numbers(rows: list[dict[str, str]], columns: Sequence[str]) -> npt.NDArray[np.float64]:
    """`[N, columns]`; NaN where a cell is empty or no number."""
    return np.array([[_number(row[name]) for name in columns] for row in rows], np.float64)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _duplicated(ids: Sequence[str]) -> npt.NDArray[np.bool_]:
    seen: set[str] = set()
    repeated = np.zeros(len(ids), bool)
    for row, name in enumerate(ids):
        repeated[row] = name in seen or not name
        seen.add(name)
    return repeated


def _faults(
    ids: Sequence[str], values: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Which rows have which fault; a row is counted under the first that it has."""
    sums = np.stack([values[:, q.columns].sum(axis=1) for q in tree.QUESTIONS], axis=1)
    found = np.zeros(len(ids), bool)
    tests = {
        "missing fractions": ~np.isfinite(values),
        "negative fractions": values < 0,
        "fractions above 1": values > 1 + SUM_TOLERANCE,
        "sums that do not fit the tree": np.abs(sums - expected) > SUM_TOLERANCE,
    }
    faults = {"duplicated ids": _duplicated(ids)}
    for kind, cells in tests.items():
        faults[kind] = np.asarray(cells.any(axis=1) & ~found)
        found |= faults[kind]
    return faults


def _refuse_faults(uri: str, ids: Sequence[str], faults: Mapping[str, npt.NDArray[np.bool_]]) -> None:
    lines = []
    for kind, rows in faults.items():
        if rows.any():
            first = ", ".join(ids[int(i)] or "(empty)" for i in np.flatnonzero(rows)[:EXAMPLES])
            more = ", ..." if rows.sum() > EXAMPLES else ""
            lines.append(f"  {int(rows.sum()):,} with {kind}: {first}{more}")
    if lines:
        raise UsageError(
            "\n".join(
                [f"{uri}: bad labels among {len(ids):,} galaxies", *lines, "correct or remove these rows"]
            )
        )
