"""The draws of every galaxy, which `gax run --keep-draws` stores next to the catalog."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch import storage
from gax_batch.catalog import companions, layout
from gax_batch.catalog.snapshots import open_existing
from gax_batch.errors import UsageError
from gax_batch.gz2 import N_ANSWERS

DRAWS: pa.Schema = pa.schema(
    [
        pa.field("galaxy_id", pa.string(), nullable=False),
        pa.field("draws", pa.list_(pa.float16()), nullable=False),
    ]
)
"""One row per galaxy. `draws` is `[S, 37]` fractions in row-major order."""


def draws_table(galaxy_ids: pa.ChunkedArray, draws: npt.NDArray[np.floating]) -> pa.Table:
    """Return draws as rows of `DRAWS`.

    Args:
        galaxy_ids: string `[N]`.
        draws: Fractions `[N, S, 37]`. They are rounded to float16, which is exact to 0.0005.
    """
    count, size = len(draws), draws.shape[1] * draws.shape[2]
    flat = pa.array(np.ascontiguousarray(draws, np.float16).reshape(-1))
    lists = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * size), flat)
    return pa.table([galaxy_ids, lists], schema=DRAWS)


def count_draws(catalog: str, key: str) -> int:
    """Return the number of draws that a part keeps of each galaxy, by the footer of its companion.

    Args:
        catalog: URI of the catalog.
        key: Key of the galaxies part.

    Raises:
        FatalError: The companion is unreadable.
        TransientError: The store kept failing.
    """
    if not storage.exists(layout.companion(catalog, layout.DRAWS, key)):
        return 0
    footer = companions.read_footer(catalog, layout.DRAWS, key)
    groups = (footer.row_group(number) for number in range(footer.num_row_groups))
    fractions = sum(group.column(DRAWS.get_field_index("draws")).num_values for group in groups)
    return fractions // (N_ANSWERS * footer.num_rows) if footer.num_rows else 0


def read_draws(catalog: str, ids: Sequence[str], version: int | None = None) -> npt.NDArray[np.float32]:
    """Read the draws of some galaxies.

    Draw k of all galaxies is of the same network. A number that is computed from draw k of several galaxies
    is therefore one draw from its posterior.

    Args:
        catalog: URI of the catalog.
        ids: `galaxy_id` of N galaxies.
        version: Number of the snapshot; the newest if None.

    Returns:
        float32 `[N, S, 37]` cumulative fractions, in the order of `ids`, rounded to float16. Draw k is what
        `<answer>_prob` would be with this draw alone. `<answer>_prob` and `<answer>_std` are the mean and the
        standard deviation of the draws. If the run had a target error, they are of more draws than are kept.

    Raises:
        UsageError: The catalog does not keep draws, lacks one of these galaxies, or was made with different
            numbers of draws.
        FatalError: A file of the catalog is unreadable.
        TransientError: The store kept failing.
    """
    opened = open_existing(catalog, version)
    keys = [name.key for name in opened.parts()]
    wanted = pa.array(sorted(set(ids)), pa.string())
    found: dict[str, npt.NDArray[np.float32]] = {}
    listed = companions.read(opened.uri, layout.DRAWS, keys, DRAWS, columns=["galaxy_id"])
    holding = [
        key
        for key, rows in zip(keys, listed, strict=True)
        if pc.any(pc.is_in(rows["galaxy_id"], wanted)).as_py()
    ]
    for rows in companions.read(opened.uri, layout.DRAWS, holding, DRAWS):
        mine = rows.filter(pc.is_in(rows["galaxy_id"], wanted))
        values = pc.list_flatten(mine["draws"]).to_numpy().astype(np.float32)
        each = values.reshape(len(mine), -1, N_ANSWERS)
        found.update(zip(mine["galaxy_id"].to_pylist(), each, strict=True))
    missing = [name for name in wanted.to_pylist() if name not in found]
    if missing:
        raise UsageError(
            f"{len(missing)} of these galaxies are not in {catalog}, such as {missing[0]!r}; check the ids"
        )
    if len({each.shape for each in found.values()}) > 1:
        raise UsageError(f"{catalog} has units of different --draws; run `gax run` until it is complete")
    return np.stack([found[name] for name in ids]) if ids else np.empty((0, 0, N_ANSWERS), np.float32)
