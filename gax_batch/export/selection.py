"""Selection of the columns and galaxies of a catalog that are published."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow as pa

from gax_batch.analysis.conditional import NAMES, NEEDED, Conditional
from gax_batch.catalog.condition import Condition, nearest
from gax_batch.catalog.parts import read_in_turn
from gax_batch.catalog.schema import (
    ANSWER_QUANTITIES,
    COLUMNS,
    CONDITIONAL_COLUMNS,
    GALAXIES,
    QUESTION_QUANTITIES,
    Column,
)
from gax_batch.errors import UsageError
from gax_batch.export import zoo_names
from gax_batch.export.formats import Names
from gax_batch.export.zoo_names import add_named, columns_named
from gax_batch.gz2 import ANSWERS, QUESTION_NAMES
from gax_batch.system.disk_database import Scratch

_QUANTITIES = frozenset(
    [f"{answer}_{quantity}" for answer in ANSWERS for quantity in ANSWER_QUANTITIES]
    + [f"{question}_{quantity}" for question in QUESTION_NAMES for quantity in QUESTION_QUANTITIES]
)


@dataclass(frozen=True, slots=True)
class Selection:
    """Columns and galaxies to publish.

    The text of a selection contains only `columns` and `where`.

    Attributes:
        columns: Names of columns.
        where: Expression that galaxies must fulfill; None for all galaxies.
        conditional: Derives columns of conditional fractions. It is not part of the text, because the bundle
            of each row determines it.
        names: Naming scheme of the fractions. It is not part of the text, so that the digests of published
            tiles, which contain the text, are those of earlier releases.
    """

    columns: tuple[str, ...]
    where: str | None = None
    conditional: Conditional | None = field(default=None, repr=False)
    names: Names | None = field(default=None, repr=False)

    def read(self, root: str, keys: Sequence[str], more: Sequence[str] = ()) -> Iterator[pa.Table]:
        """Yield the selected galaxies of some parts, one part at a time, in the order of the keys.

        Args:
            root: URI of the table of galaxies.
            keys: Keys of its parts.
            more: Additional columns to read. They come after `columns`.

        Raises:
            UsageError: The expression is not allowed or cannot be evaluated, or conditional fractions cannot
                be derived (see `Conditional.add_to`).
            FatalError: A part is missing or unreadable.
            TransientError: The store kept failing.
        """
        wanted = list(dict.fromkeys([*self.columns, *more]))
        stored = [name for name in wanted if name in GALAXIES.names]
        if self.conditional is None or stored == wanted:
            yield from self._stored(root, keys, wanted)
            return
        for rows in self._stored(root, keys, list(dict.fromkeys([*stored, *NEEDED]))):
            derived = self.conditional.add_to(rows)
            derived = derived if self.names is None else add_named(derived, self.names)
            yield derived.select(wanted)

    def _stored(self, root: str, keys: Sequence[str], names: Sequence[str]) -> Iterator[pa.Table]:
        if self.where is None:
            yield from read_in_turn(root, keys, _schema(names))
            return
        with tempfile.TemporaryDirectory(prefix="gax-") as folder, Scratch(Path(folder)) as scratch:
            condition = Condition(self.where, GALAXIES, scratch)
            for rows in read_in_turn(root, keys, _schema([*names, *condition.columns])):
                yield condition.filter(rows).select(names)


def _schema(names: Sequence[str]) -> pa.Schema:
    return pa.schema([GALAXIES.field(name) for name in dict.fromkeys(names)])


def choose_columns(
    patterns: Sequence[str],
    *,
    conditional: bool = False,
    names: Names | None = None,
    option: str = "--columns ",
) -> tuple[str, ...]:
    """Return the columns that names or globs (`*_prob`) match, each once, in the order of the patterns.

    Args:
        patterns: Names or globs. Each may contain several, separated by commas. Without patterns, all columns
            are chosen.
        conditional: Whether to choose columns of conditional fractions too: those that the patterns match,
            or all if none match.
        names: Naming scheme whose columns are chosen too, in the same way. Without patterns, they replace
            all quantities of answers and questions.
        option: Text before the pattern in the message of an error.

    Raises:
        UsageError: A pattern does not match any column.
    """
    named = columns_named(names) if names else ()
    known = (*GALAXIES.names, *(NAMES if conditional else ()), *named)
    chosen: dict[str, None] = {}
    requested = [name.strip() for pattern in patterns for name in pattern.split(",") if name.strip()]
    if names and not requested:
        requested = [name for name in known if name not in _QUANTITIES]
    for pattern in requested or ["*"]:
        found = [name for name in known if fnmatchcase(name, pattern)]
        if not found:
            raise UsageError(f"{option}{pattern!r} is not a column; {nearest(pattern, known)}")
        chosen |= dict.fromkeys(found)
    if conditional and chosen.keys().isdisjoint(NAMES):
        chosen |= dict.fromkeys(NAMES)
    if chosen.keys().isdisjoint(named):
        chosen |= dict.fromkeys(named)
    return tuple(chosen)


def described(names: Sequence[str]) -> list[Column]:
    """Return the descriptions of columns of a catalog, or of conditional fractions, in their order."""
    by_name = {column.name: column for column in (*COLUMNS, *CONDITIONAL_COLUMNS, *zoo_names.COLUMNS)}
    return [by_name[name] for name in names]
