"""Sums over galaxies, draw by draw, from which the fractions of a survey and their uncertainty are computed.

Draw k is of the same network for every galaxy, so that the sum of the fractions of draw k over any galaxies
is a draw from the posterior of that sum. Each unit stores such sums as rows of `SUMS`. The rows of several
units may be concatenated, and `add_up` adds rows of the same group of galaxies, statistic and draw.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch import gz2
from gax_batch.imaging.wcs import healpix_cells

Doubles = npt.NDArray[np.float64]
Bins = npt.NDArray[np.int64]

EVERYTHING = "all"
HEALPIX = "healpix"

EXPECTED = "expected"
"""Sum of fractions, per draw: the expected fraction of volunteers who give the answer."""
MOST_LIKELY = "most_likely"
"""Number of galaxies whose most likely path through the tree has the answer, per draw."""
SQUARE = "square"
"""Sum of squared fractions, averaged over draws."""
PRODUCT = "product"
"""Sum of the fractions times those of their parent answers, averaged over draws."""

SUMS: pa.Schema = pa.schema(
    [
        pa.field("grouping", pa.string(), nullable=False),
        pa.field("bin", pa.int64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("statistic", pa.string(), nullable=False),
        pa.field("draw", pa.int32()),
        pa.field("galaxies", pa.int64(), nullable=False),
        pa.field("values", pa.list_(pa.float64()), nullable=False),
    ]
)
"""One row per group of galaxies, statistic and draw.

`grouping` is `all`, `healpix<order>` or the name of a column. `bin` is the cell (nested numbering) or the
number of the bin `[low, high)` of the column, null for galaxies in none. `draw` is null for averages over
draws. `values` are 37 sums, one per answer.
"""

_KEYS = ("grouping", "bin", "statistic", "draw")
_BUFFERED_ROWS = 200_000


@dataclass(frozen=True, slots=True)
class Grouping:
    """The groups of galaxies over which a run sums, besides all galaxies.

    Attributes:
        order: Order of the HEALPix cells; None for no cells.
        edges: Increasing edges of bins, by the numeric column of the catalog that is binned. The last bin
            includes its upper edge.
    """

    order: int | None = None
    edges: Mapping[str, tuple[float, ...]] | None = None

    def has_made(self, sums: pa.Table) -> bool:
        """Return whether rows of `SUMS`, at least one, are of these groups."""
        names = {EVERYTHING, *(self.edges or {})} | (
            {f"{HEALPIX}{self.order}"} if self.order is not None else set()
        )
        found = sums.group_by(["grouping", "low", "high"]).aggregate([]).to_pylist()
        ends = {(row["grouping"], row["low"], row["high"]) for row in found if row["low"] is not None}
        wanted = {(name, *pair) for name, edges in (self.edges or {}).items() for pair in pairwise(edges)}
        return {row["grouping"] for row in found} == names and ends <= wanted

    def assign(self, galaxies: pa.Table) -> dict[str, Bins]:
        """Return the bin of each galaxy, int64 `[N]`, -1 for none, by the name of the grouping.

        Args:
            galaxies: N rows of `GALAXIES`.
        """
        bins = {EVERYTHING: np.zeros(len(galaxies), np.int64)}
        if self.order is not None:
            ra, dec = (_floats(galaxies[name]) for name in ("ra", "dec"))
            bins[f"{HEALPIX}{self.order}"] = healpix_cells(ra, dec, self.order)
        for column, edges in (self.edges or {}).items():
            bins[column] = _bin(_floats(galaxies[column]), np.array(edges))
        return bins


def parse_edges(text: str) -> dict[str, list[str]]:
    """Parse `COLUMN=EDGE,EDGE,...;COLUMN=...` into edges, as text, by column.

    Raises:
        ValueError: The text does not have this form.
    """
    bins: dict[str, list[str]] = {}
    for part in filter(None, text.split(";")):
        name, equals, edges = part.partition("=")
        if not equals:
            raise ValueError(f"'{part}' is not COLUMN=EDGE,EDGE,...")
        bins[name.strip()] = [edge.strip() for edge in edges.split(",")]
    return bins


def are_edges(values: Sequence[float]) -> bool:
    """Return whether values are two or more finite numbers, each larger than the one before."""
    return len(values) >= 2 and all(map(math.isfinite, values)) and all(a < b for a, b in pairwise(values))


def sums_of(galaxies: pa.Table, draws: npt.NDArray[np.float32], grouping: Grouping) -> pa.Table:
    """Sum draws over groups of galaxies.

    Args:
        galaxies: N rows of `GALAXIES`.
        draws: float32 `[N, S, 37]` cumulative fractions.
        grouping: The groups.

    Returns:
        Rows of `SUMS`; none if there are no galaxies or no draws.
    """
    count, n_draws, _ = draws.shape
    if not count or not n_draws:
        return SUMS.empty_table()
    fractions = draws.astype(np.float64)
    likely = gz2.most_likely(draws).astype(np.float64)
    square = np.einsum("nsa,nsa->na", fractions, fractions)[:, None] / n_draws
    product = np.einsum("nsa,nsa->na", fractions, gz2.parents(fractions))[:, None] / n_draws
    terms = np.concatenate([fractions, likely, square, product], axis=1)
    tables = []
    for name, bins in grouping.assign(galaxies).items():
        order = np.argsort(bins, kind="stable")
        found, starts, counts = np.unique(bins[order], return_index=True, return_counts=True)
        ordered = terms if len(found) == 1 else terms[order]
        totals = np.add.reduceat(ordered, starts, axis=0)
        edges = (grouping.edges or {}).get(name)
        tables.append(_rows(name, found, counts, totals, n_draws, edges))
    return pa.concat_tables(tables)


def add_up(tables: Iterable[pa.Table]) -> pa.Table:
    """Add rows of the same group, statistic and draw, with a bounded number of rows in memory.

    Args:
        tables: Rows of `SUMS`.

    Returns:
        Rows of `SUMS`, sorted by grouping, bin, statistic and draw.
    """
    total, waiting, rows = SUMS.empty_table(), [], 0
    for table in tables:
        waiting.append(table)
        rows += len(table)
        if rows > _BUFFERED_ROWS:
            total, waiting, rows = _reduced([total, *waiting]), [], 0
    return _reduced([total, *waiting])


def values_of(table: pa.Table) -> Doubles:
    """Return the sums of N rows of `SUMS`, float64 `[N, 37]`."""
    flat: Doubles = pc.list_flatten(table["values"]).to_numpy()
    return flat.reshape(len(table), gz2.N_ANSWERS)


def _reduced(tables: list[pa.Table]) -> pa.Table:
    table = pa.concat_tables([each.cast(SUMS) for each in tables]).combine_chunks()
    if not len(table):
        return table
    order = pc.sort_indices(table, [(name, "ascending") for name in _KEYS])
    labels = table.drop_columns("values").take(order)
    first = np.ones(len(labels), bool)
    first[1:] = False
    for name in _KEYS:
        here, before = labels[name].slice(1), labels[name].slice(0, len(labels) - 1)
        same = pc.fill_null(pc.equal(here, before), False).to_numpy()
        neither = pc.and_(pc.is_null(here), pc.is_null(before)).to_numpy()
        first[1:] |= ~(same | neither)
    starts = np.flatnonzero(first)
    # NumPy reorders rows of numbers faster than Arrow reorders lists.
    sums = np.add.reduceat(values_of(table)[order.to_numpy()], starts, axis=0)
    galaxies = np.add.reduceat(labels["galaxies"].to_numpy(), starts)
    kept = labels.take(starts)
    return _table({name: kept[name] for name in kept.column_names} | {"galaxies": galaxies}, sums)


def _rows(
    name: str,
    found: Bins,
    counts: Bins,
    totals: Doubles,
    n_draws: int,
    edges: tuple[float, ...] | None,
) -> pa.Table:
    """Return sums, `totals`, float64 `[bins, 2 S + 2, 37]`, as rows of `SUMS`."""
    per_bin = totals.shape[1]
    statistics = [EXPECTED] * n_draws + [MOST_LIKELY] * n_draws + [SQUARE, PRODUCT]
    draws = [*range(n_draws), *range(n_draws), None, None]
    ends = np.full((len(found), 2), np.nan) if edges is None else np.stack([edges[:-1], edges[1:]], 1)[found]
    ends[found < 0] = np.nan
    columns = {
        "grouping": pa.repeat(name, len(found) * per_bin),
        "bin": np.repeat(np.where(name == EVERYTHING, -1, found), per_bin),
        "low": np.repeat(ends[:, 0], per_bin),
        "high": np.repeat(ends[:, 1], per_bin),
        "statistic": pa.array(statistics * len(found)),
        "draw": pa.array(draws * len(found), pa.int32()),
        "galaxies": np.repeat(counts, per_bin),
    }
    none = pa.scalar(None, pa.int64())
    columns["bin"] = pc.if_else(pc.less(pa.array(columns["bin"]), 0), none, pa.array(columns["bin"]))
    columns |= {side: pa.array(columns[side], from_pandas=True) for side in ("low", "high")}
    return _table(columns, totals.reshape(-1, gz2.N_ANSWERS))


def _table(columns: Mapping[str, Any], values: Doubles) -> pa.Table:
    offsets = np.arange(0, values.size + 1, gz2.N_ANSWERS, dtype=np.int32)
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1)))
    return pa.table([lists if name == "values" else columns[name] for name in SUMS.names], schema=SUMS)


def _floats(column: pa.ChunkedArray) -> Doubles:
    values: Doubles = pc.fill_null(pc.cast(column, pa.float64()), np.nan).to_numpy()
    return values


def _bin(values: Doubles, edges: Doubles) -> Bins:
    bins = np.searchsorted(edges, values, side="right") - 1
    bins[values == edges[-1]] = len(edges) - 2
    bins[~((values >= edges[0]) & (values <= edges[-1]))] = -1
    return bins
