"""Which columns and galaxies of a catalog are published."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow as pa

from gax_batch.catalog.schema import COLUMNS, GALAXIES, Column
from gax_batch.catalog.writer import read_in_turn
from gax_batch.errors import UsageError
from gax_batch.publish.condition import Condition, nearest
from gax_batch.scratch import Scratch


@dataclass(frozen=True, slots=True)
class Selection:
    """Names of columns, and the expression that a galaxy must fulfil (None: all do)."""

    columns: tuple[str, ...]
    where: str | None = None

    def read(self, root: str, keys: Sequence[str], more: Sequence[str] = ()) -> Iterator[pa.Table]:
        """The selected galaxies of some parts, a part at a time, in the order of the keys.

        Args:
            root: URI of the table of galaxies.
            keys: Of its parts.
            more: Columns to read besides; they come after `columns`.

        Raises:
            UsageError: The expression is not allowed or cannot be evaluated.
            FatalError: A part is missing or unreadable.
            TransientError: The store kept failing.
        """
        wanted = list(dict.fromkeys([*self.columns, *more]))
        if self.where is None:
            yield from read_in_turn(root, keys, _schema(wanted))
            return
        with tempfile.TemporaryDirectory(prefix="gax-") as folder, Scratch(Path(folder)) as scratch:
            condition = Condition(self.where, GALAXIES, scratch)
            for rows in read_in_turn(root, keys, _schema([*wanted, *condition.columns])):
                yield condition.filter(rows).select(wanted)


def _schema(names: Sequence[str]) -> pa.Schema:
    return pa.schema([GALAXIES.field(name) for name in dict.fromkeys(names)])


def choose_columns(patterns: Sequence[str]) -> tuple[str, ...]:
    """The columns that names or globs (`*_prob`) mean, each once, in the order of the patterns.

    Args:
        patterns: Each may hold several, separated by commas; none at all means every column.

    Raises:
        UsageError: One means no column.
    """
    chosen: dict[str, None] = {}
    asked = [name.strip() for pattern in patterns for name in pattern.split(",") if name.strip()]
    for pattern in asked or ["*"]:
        found = [name for name in GALAXIES.names if fnmatchcase(name, pattern)]
        if not found:
            raise UsageError(f"--columns {pattern!r} is no column; {nearest(pattern, GALAXIES.names)}")
        chosen |= dict.fromkeys(found)
    return tuple(chosen)


def described(names: Sequence[str]) -> list[Column]:
    """What the catalog's schema says of columns, in their order."""
    by_name = {column.name: column for column in COLUMNS}
    return [by_name[name] for name in names]
