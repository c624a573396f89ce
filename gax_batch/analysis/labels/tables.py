"""Read tables of labels as published. The header determines the kind of a table.

Fractions: Hart et al. 2016 (MNRAS 461, 3663), weighted or debiased (`asset_id, t01_..._weighted_fraction` or
`..._debiased`), and the Galaxy Zoo challenge's CSV (`GalaxyID, Class1.1 ... Class11.6`, or some of its
questions). Facts: clear classes (`galaxy_id, class5[, strict]`), galaxies of none of them (`galaxy_id`), and
the largest fraction (`GalaxyID, argmax`). A table with faults is refused with counts and examples.
"""

import csv
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gax_batch import gz2, storage
from gax_batch.analysis.labels.classes import CLEAR_CLASSES, LARGEST_COLUMNS, NO_CLASS
from gax_batch.analysis.labels.faults import EXAMPLES, Rows, duplicated, refuse_faults
from gax_batch.analysis.labels.rows import CHALLENGE_VOTES, DEBIASED, WEIGHTED, Labels
from gax_batch.errors import UsageError

Values = npt.NDArray[np.float64]
Table = list[dict[str, str]]
DEBIASED_COLUMNS = tuple(f"{answer}_debiased" for answer in gz2.ANSWERS)
# Published fractions are rounded to three digits, have up to seven answers, and sometimes lack a vote.
SUM_TOLERANCE = 0.03
_VOLUNTEERS = "total_classifications"
_LARGEST = {gz2.CHALLENGE_COLUMNS[column]: index for index, column in enumerate(LARGEST_COLUMNS)}


def read_labels(uri: str, definition: str | None = None) -> Labels:
    """Read a table of labels.

    Args:
        uri: A CSV file in UTF-8.
        definition: Definition of the fractions to read from a table with both; None for `weighted`.

    Raises:
        UsageError: The table cannot be read, has an unknown kind, or has faults, all of which are counted.
    """
    header, rows = _read(uri)
    names = set(header)
    debiased = {"asset_id", *DEBIASED_COLUMNS} <= names
    if {"asset_id", _VOLUNTEERS, *gz2.HART16_COLUMNS} <= names and not (debiased and definition == DEBIASED):
        return _hart16(uri, rows, WEIGHTED)
    if debiased:
        return _hart16(uri, rows, DEBIASED)
    if {"GalaxyID", "asset_id"} & names and names & set(gz2.CHALLENGE_COLUMNS):
        return _challenge(uri, rows, names)
    if {"galaxy_id", "class5"} <= names:
        return _clear(uri, rows)
    if header == ["galaxy_id"]:
        return _none(uri, rows)
    if {"GalaxyID", "argmax"} <= names:
        return _largest(uri, rows)
    first = ", ".join(header[:EXAMPLES]) + (", ..." if len(header) > EXAMPLES else "")
    raise UsageError(
        f"{uri} has no columns of a known definition among its {len(header)} ({first}), so it is not a known "
        f"table of labels; expected asset_id with {_VOLUNTEERS}, {gz2.HART16_COLUMNS[0]}, ... (Hart et al. "
        f"2016, weighted) or {DEBIASED_COLUMNS[0]}, ... (debiased); GalaxyID with Class1.1, ... (the "
        "Galaxy Zoo challenge) or argmax; galaxy_id with class5, or alone for galaxies of none of the classes"
    )


def _read(uri: str) -> tuple[list[str], Table]:
    try:
        text = storage.read_bytes(storage.normalize_uri(uri)).decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UsageError(f"no table of labels at {uri}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{uri} is not a CSV file in UTF-8") from None
    reader = csv.DictReader(io.StringIO(text))
    header, rows = list(reader.fieldnames or ()), list(reader)
    if not rows:
        raise UsageError(f"{uri} has no galaxies")
    return header, rows


def _hart16(uri: str, rows: Table, definition: str) -> Labels:
    """Read conditional fractions. Debiased ones of a question need not sum to 1."""
    ids = _texts(rows, "asset_id")
    columns = gz2.HART16_COLUMNS if definition == WEIGHTED else DEBIASED_COLUMNS
    values, volunteers = _numbers(rows, columns), _volunteers(rows)
    sums = _sums(values)
    empty = sums == 0
    wrong = empty if definition == DEBIASED else np.abs(sums - 1) > SUM_TOLERANCE
    # A question that nobody was asked has only zeros, which is wrong for questions that everybody is asked.
    unfit = wrong & (~empty | np.array([question.parent is None for question in gz2.QUESTIONS]))
    _refuse(uri, ids, _value_faults(ids, values, unfit, volunteers))
    cumulative = _down_the_tree(values)
    return Labels.of_fractions(ids, cumulative, volunteers, definition=definition, numbering="asset_id")


def _challenge(uri: str, rows: Table, names: set[str]) -> Labels:
    """Read cumulative fractions of whole questions. Asset ids mean those of Hart et al. (weighted)."""
    numbering = "GalaxyID" if "GalaxyID" in names else "asset_id"
    ids = _texts(rows, numbering)
    present = np.array([name in names for name in gz2.CHALLENGE_COLUMNS])
    _refuse_partial_questions(uri, present)
    values = np.full((len(rows), gz2.N_ANSWERS), np.nan)
    values[:, present] = _numbers(rows, [n for n in gz2.CHALLENGE_COLUMNS if n in names])
    sums, volunteers = _sums(values), _volunteers(rows)
    everybody = np.ones(len(rows))
    parents = [everybody if q.parent is None else values[:, q.parent] for q in gz2.QUESTIONS]
    asked = np.stack(parents, axis=1)
    # A question whose parent is not in the table was answered by at most all volunteers.
    unfit = np.where(np.isfinite(asked), np.abs(sums - asked), sums - 1) > SUM_TOLERANCE
    _refuse(uri, ids, _value_faults(ids, values[:, present], unfit, volunteers))
    return Labels.of_fractions(
        ids,
        _down_the_tree(values, present),
        volunteers,
        definition=DEBIASED if numbering == "GalaxyID" else WEIGHTED,
        numbering=numbering,
    )


def _clear(uri: str, rows: Table) -> Labels:
    ids, names = _texts(rows, "galaxy_id"), _texts(rows, "class5")
    known = {name: index for index, name in enumerate(CLEAR_CLASSES)} | {"": -1}
    strict = _texts(rows, "strict") if "strict" in rows[0] else ["1"] * len(rows)
    pairs = list(zip(names, strict, strict=True))
    faults = {
        "duplicated ids": duplicated(ids),
        "unknown classes": np.array([name not in known for name in names]),
        "strict neither 0 nor 1": np.array([bool(name) and text not in {"0", "1"} for name, text in pairs]),
    }
    _refuse(uri, ids, faults)
    classes = np.array([known[name] for name in names], np.int8)
    return _facts(
        ids, classes=classes, strict=np.array([name != "spiral" or text == "1" for name, text in pairs])
    )


def _none(uri: str, rows: Table) -> Labels:
    ids = _texts(rows, "galaxy_id")
    _refuse(uri, ids, {"duplicated ids": duplicated(ids)})
    return _facts(ids, classes=np.full(len(ids), NO_CLASS, np.int8))


def _largest(uri: str, rows: Table) -> Labels:
    ids, names = _texts(rows, "GalaxyID"), _texts(rows, "argmax")
    known = _LARGEST | {"": -1}
    unknown = np.array([name not in known for name in names])
    kind = f"largest fractions other than {', '.join(_LARGEST)}"
    _refuse(uri, ids, {"duplicated ids": duplicated(ids), kind: unknown})
    return _facts(ids, largest=np.array([known[name] for name in names], np.int8))


def _facts(
    ids: list[str],
    classes: npt.NDArray[np.int8] | None = None,
    strict: Rows | None = None,
    largest: npt.NDArray[np.int8] | None = None,
) -> Labels:
    """Return labels without fractions; the facts are about the challenge's fractions."""
    count = len(ids)
    unknown = np.full(count, -1, np.int8)
    return Labels(
        ids=ids,
        cumulative=np.full((count, gz2.N_ANSWERS), np.nan, np.float32),
        volunteers=np.zeros(count, np.float32),
        classes=unknown if classes is None else classes,
        strict=np.ones(count, bool) if strict is None else strict,
        largest=unknown.copy() if largest is None else largest,
        definition=DEBIASED,
        numbering="GalaxyID",
    )


def _down_the_tree(values: Values, present: Rows | None = None) -> Values:
    """Normalize each question's answers to the fraction of volunteers who were asked it.

    Args:
        values: Conditional or cumulative fractions, float `[N, 37]`; NaN if a column is missing.
        present: Columns of the table, bool `[37]`; None for all.

    Returns:
        Cumulative fractions, float `[N, 37]`. An unanswered question has zeros if almost nobody was asked. If
        more than `SUM_TOLERANCE` of the volunteers were asked, it and the questions below it are unknown.
    """
    out = np.full(values.shape, np.nan)
    for index in gz2.TOPOLOGICAL:
        question = gz2.QUESTIONS[index]
        block = values[:, question.columns]
        total = block.sum(axis=1)
        if question.parent is None:
            asked = np.ones(len(values))
        else:
            has_parent = present is None or present[question.parent]
            asked = out[:, question.parent] if has_parent else total
        unanswered = np.where(asked <= SUM_TOLERANCE, 0.0, np.nan)
        scale = np.where(total > 0, asked / np.where(total > 0, total, 1), unanswered)
        out[:, question.columns] = np.where(np.isfinite(total)[:, None], block * scale[:, None], np.nan)
    return out


def _refuse_partial_questions(uri: str, present: Rows) -> None:
    partial = [q for q in gz2.QUESTIONS if present[q.columns].any() and not present[q.columns].all()]
    absent = [gz2.CHALLENGE_COLUMNS[c] for q in partial for c in range(q.start, q.stop) if not present[c]]
    if partial:
        more = ", ..." if len(absent) > EXAMPLES else ""
        raise UsageError(
            f"{uri} has only some answers of {len(partial)} questions, without {', '.join(absent[:EXAMPLES])}"
            f"{more}; add these columns, or remove the other answers of their questions"
        )


def _sums(values: Values) -> Values:
    return np.stack([values[:, q.columns].sum(axis=1) for q in gz2.QUESTIONS], axis=1)


def _texts(rows: Table, column: str) -> list[str]:
    return [row[column] or "" for row in rows]


def _numbers(rows: Table, columns: Sequence[str]) -> Values:
    """Return numbers, float `[N, columns]`; NaN if a cell is empty or not a number."""
    return np.array([[_number(row[name]) for name in columns] for row in rows], np.float64)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _volunteers(rows: Table) -> Values:
    """Return the number of people who classified each galaxy, `[N]`."""
    if _VOLUNTEERS in rows[0]:
        return _numbers(rows, (_VOLUNTEERS,))[:, 0]
    return np.full(len(rows), CHALLENGE_VOTES)


def _value_faults(ids: Sequence[str], values: Values, unfit: Rows, volunteers: Values) -> dict[str, Rows]:
    """Return the rows with each kind of fault. A row counts only for its first fault.

    Args:
        ids: Identifiers of N rows.
        values: Fractions, float `[N, columns]`.
        unfit: Whether the sum of each question contradicts the tree, bool `[N, 11]`.
        volunteers: Number of people who classified each galaxy, `[N]`.
    """
    found = np.zeros(len(ids), bool)
    tests = {
        "missing fractions": ~np.isfinite(values),
        "negative fractions": values < 0,
        "fractions above 1": values > 1 + SUM_TOLERANCE,
        "sums that do not fit the tree": unfit,
    }
    faults = {"duplicated ids": duplicated(ids)}
    for kind, cells in tests.items():
        faults[kind] = np.asarray(cells.any(axis=1) & ~found)
        found |= faults[kind]
    return faults | {"no classifications": ~(volunteers > 0)}


def _refuse(uri: str, ids: Sequence[str], faults: dict[str, Rows]) -> None:
    refuse_faults(f"{uri}: faulty labels", ids, faults, "correct or remove these rows")
