"""Find the galaxies of a snapshot that match filters, in their order."""

import tempfile
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np

from gax_batch.catalog.condition import Condition
from gax_batch.catalog.schema import GALAXIES
from gax_batch.system.disk_database import Scratch
from gax_batch.viewer.explorer.columns import Columns, Places
from gax_batch.viewer.explorer.filters import Filters

_KEPT = 4
"""Number of cached results, for the next page of the same filters. Each takes eight bytes per galaxy."""
_AT_ONCE = 4_000_000
"""Galaxies that the database processes at once, within its memory limit."""


class Finder:
    """Evaluates filters, one at a time."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._answers: OrderedDict[tuple[str | None, str, tuple[str, ...]], Places] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, filters: Filters) -> Places:
        """Return the galaxies, int64 `[M]`, in the requested order. Of equal ones, the first row comes first.

        Raises:
            UsageError: The expression is not allowed or cannot be evaluated.
            TransientError: The store kept failing.
        """
        key = (filters.expression(), filters.order, _sorted_by(filters))
        with self._lock:
            if key not in self._answers:
                self._answers[key] = self._ordered(self._matching(key[0], key[2]), filters)
            self._answers.move_to_end(key)
            while len(self._answers) > _KEPT:
                self._answers.popitem(last=False)
            return self._answers[key]

    def _matching(self, expression: str | None, more: tuple[str, ...]) -> Places:
        """Return the galaxies for which an expression is true. `more` columns are read in the same pass."""
        if expression is None:
            return np.arange(len(self._columns))
        with tempfile.TemporaryDirectory(prefix="gax-") as folder, Scratch(Path(folder)) as scratch:
            condition = Condition(expression, GALAXIES, scratch)
            rows = self._columns.table(["galaxy_id", *condition.columns, *more])
            found = [
                start + condition.places(rows.slice(start, _AT_ONCE)).to_numpy()
                for start in range(0, len(rows), _AT_ONCE)
            ]
        return np.concatenate([np.empty(0, np.int64), *found])

    def _ordered(self, places: Places, filters: Filters) -> Places:
        columns = _sorted_by(filters)
        if not columns:
            return places
        # Sort in NumPy, since a database would sort whole rows, of which few are shown.
        values = self._columns.floats(columns[0])[places]
        for column in columns[1:]:
            values = values - self._columns.floats(column)[places]
        return places[np.argsort(values if filters.order.startswith("least") else -values, kind="stable")]


def _sorted_by(filters: Filters) -> tuple[str, ...]:
    """Return the column, or the two whose difference, by which galaxies are ordered."""
    if filters.order == "catalog":
        return ()
    return filters.terms if filters.order.endswith("uncertain") else (f"{filters.answer}_prob",)
