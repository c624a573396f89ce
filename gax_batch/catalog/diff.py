"""Compare two snapshots of a catalog: galaxies added and removed, and changes of probabilities.

Only parts that one of the two does not have are read. A part never changes, so that a galaxy in a common part
is the same in both.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from gax_batch.catalog.layout import PartName
from gax_batch.catalog.schema import GALAXIES
from gax_batch.catalog.snapshots import Catalog
from gax_batch.gz2 import ANSWERS, QUESTIONS
from gax_batch.system.disk_database import Scratch

_PROBABILITIES = [f"{answer}_prob" for answer in ANSWERS]
_COMPARED = ["galaxy_id", "gz2_class", *_PROBABILITIES]
_SCHEMA = pa.schema([GALAXIES.field(name).remove_metadata() for name in _COMPARED])


@dataclass(frozen=True, slots=True)
class Move:
    """Changes of the probabilities of a question, over the galaxies that both snapshots have.

    Attributes:
        question: Name of the question.
        mean: Mean absolute change over its answers and all compared galaxies.
        largest: Largest absolute change of any answer of any galaxy.
    """

    question: str
    mean: float
    largest: float


@dataclass(frozen=True, slots=True)
class MovedGalaxy:
    """A galaxy with changed probabilities: root mean square change over the 37 answers, and the classes."""

    galaxy_id: str
    rms: float
    class_before: str | None
    class_after: str | None


@dataclass(frozen=True, slots=True)
class Changes:
    """The differences between snapshot `before` and snapshot `after`.

    Attributes:
        before: Number of the earlier snapshot.
        after: Number of the later snapshot.
        added: Number of galaxies that only the later snapshot has.
        removed: Number of galaxies that only the earlier snapshot has.
        compared: Number of galaxies in both that were processed again.
        moved: Number of compared galaxies with a changed probability.
        reclassified: Number of compared galaxies with another `gz2_class`.
        questions: Changes of each question; empty if nothing was compared.
        most: The galaxies that changed most, sorted by decreasing change.
    """

    before: int
    after: int
    added: int
    removed: int
    compared: int
    moved: int
    reclassified: int
    questions: list[Move]
    most: list[MovedGalaxy]


def compare(before: Catalog, after: Catalog, folder: Path, *, most: int = 10) -> Changes:
    """Compare two snapshots of one catalog.

    Args:
        before: The earlier snapshot.
        after: The later snapshot.
        folder: An existing folder on a local disk, for data that does not fit in memory.
        most: How many of the galaxies that changed most to list.

    Raises:
        UsageError: A snapshot can no longer be read, or the disk is full.
        TransientError: The store kept failing.
    """
    common = set(before.parts()) & set(after.parts())
    with Scratch(folder) as scratch:
        scratch.load("before", _SCHEMA, _rows(before, common))
        scratch.load("after", _SCHEMA, _rows(after, common))
        scratch.run(_joined())
        counts = scratch.one(_COUNTS) or {}
        return Changes(
            before=before.version or 0,
            after=after.version or 0,
            **{name: int(value or 0) for name, value in counts.items()},
            questions=_moves(scratch) if counts["compared"] else [],
            most=_most(scratch, most),
        )


def _rows(catalog: Catalog, common: set[PartName]) -> Iterator[pa.Table]:
    names = [name for name in catalog.parts() if name not in common]
    return catalog.batches(_COMPARED, names)


def _largest(answers: Sequence[str]) -> str:
    return f"greatest({', '.join(f'abs({name})' for name in answers)})"


def _joined() -> str:
    changes = ", ".join(f"a.{name} - b.{name} AS {name}" for name in _PROBABILITIES)
    return (
        f"CREATE TABLE moved AS SELECT galaxy_id, {changes}, "  # noqa: S608 (our own columns)
        "b.gz2_class AS class_before, a.gz2_class AS class_after "
        "FROM before b JOIN after a USING (galaxy_id)"
    )


_COUNTS = f"""
SELECT (SELECT count(*) FROM after ANTI JOIN before USING (galaxy_id)) AS added,
    (SELECT count(*) FROM before ANTI JOIN after USING (galaxy_id)) AS removed,
    count(*) AS compared,
    count(*) FILTER ({_largest(_PROBABILITIES)} > 0) AS moved,
    count(*) FILTER (class_before IS DISTINCT FROM class_after) AS reclassified
FROM moved
"""  # noqa: S608 (our own columns)


def _moves(scratch: Scratch) -> list[Move]:
    columns = []
    for question in QUESTIONS:
        names = _PROBABILITIES[question.columns]
        total = " + ".join(f"abs({name})" for name in names)
        columns.append(f"avg(({total}) / {len(names)}) AS {question.name}_mean")
        columns.append(f"max({_largest(names)}) AS {question.name}_largest")
    found = scratch.one(f"SELECT {', '.join(columns)} FROM moved") or {}  # noqa: S608 (our own columns)
    return [
        Move(q.name, float(found[f"{q.name}_mean"] or 0), float(found[f"{q.name}_largest"] or 0))
        for q in QUESTIONS
    ]


def _most(scratch: Scratch, count: int) -> list[MovedGalaxy]:
    square = " + ".join(f"{name} * {name}" for name in _PROBABILITIES)
    sql = (
        f"SELECT galaxy_id, sqrt(({square}) / {len(_PROBABILITIES)}) AS rms, "  # noqa: S608 (our own columns)
        "class_before, class_after FROM moved WHERE rms > 0 ORDER BY rms DESC, galaxy_id LIMIT $count"
    )
    return [MovedGalaxy(**row) for batch in scratch.stream(sql, count=count) for row in batch.to_pylist()]


def changes_lines(changes: Changes) -> list[str]:
    """Return the comparison as lines of text."""
    lines = [
        f"snapshot {changes.before} to {changes.after}: {changes.added:,} galaxies added, "
        f"{changes.removed:,} removed, {changes.compared:,} processed again",
    ]
    if changes.compared:
        lines.append(
            f"{changes.moved:,} of them changed, {changes.reclassified:,} have another class "
            "(mean and largest absolute change of a probability)"
        )
        lines += [f"  {move.question:22} {move.mean:.5f}  {move.largest:.5f}" for move in changes.questions]
    if changes.most:
        lines.append("most changed (root mean square over the 37 answers)")
        lines += [
            f"  {galaxy.galaxy_id}  {galaxy.rms:.5f}  {galaxy.class_before} -> {galaxy.class_after}"
            for galaxy in changes.most
        ]
    return lines
