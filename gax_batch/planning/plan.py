"""The plan of a run: the difference between a listing and a catalog, in units of work.

A member of the listing is new, or known to the catalog by its `source_uri`. If a known member changed
(version, id, position, or whether the listing rejects it), its whole unit is redone under its old name. New
members form new units. Members that vanished stay in the catalog until their unit is redone, or they are
pruned.

A `galaxy_id` belongs to one galaxy of the whole catalog. That galaxy keeps it while it is listed. Once it
vanished, a listed member that claims the id gets it, and the unit of the vanished one is redone.

Everything streams: a plan takes the same memory for a thousand galaxies and for a billion.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gax_batch import storage
from gax_batch.catalog import layout
from gax_batch.errors import FatalError, UsageError
from gax_batch.planning.difference import NEW, Difference, PlanCounts, PositionMatch
from gax_batch.planning.partition import are_whole, partition
from gax_batch.planning.unchanged_shards import SettledShards
from gax_batch.rejects import MAX_ATTEMPTS
from gax_batch.sources.base import MEMBER_SCHEMA
from gax_batch.storage.listing import list_objects
from gax_batch.system.disk_database import Scratch

# Units in one file of a plan: each worker parses the whole footer of the file that has its unit.
UNITS_PER_FILE = 64

SAMPLE = 64
"""Cutouts that show within seconds whether a run can read its input, and how fast."""

_SAMPLED_UNITS = 8
_MAX_LOOKED_UP = 1_000_000
_DIGEST_CHARACTERS = 16
_FINGERPRINTED = ("source_uri", "source_version", "galaxy_id", "ra", "dec", "reason")
_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit to process.

    Attributes:
        unit_id: Name of the unit: a digest of its members' URIs when it was new. Never changes.
        fingerprint: Digest of the present URIs, versions, ids and positions of its members.
        reason: Why it is processed: `new`, `changed`, `model changed`, `retried` or `forced`.
        members: Number of members.
        bytes: Size of all members in bytes; None if unknown.
        whole: Whether it consists of one or several whole shards, see `PartName.origin`.
    """

    unit_id: str
    fingerprint: str
    reason: str
    members: int
    bytes: int | None
    whole: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The units of a run and, in files below a folder of the caller, their members."""

    units: list[Unit]
    counts: PlanCounts
    rejects: Mapping[str, int]
    """Number of members that are already rejected, by reason."""
    removed: list[str]
    """Units that are removed from the catalog, since all their members vanished."""
    matched: PositionMatch
    """The match between the table of positions and the listing."""
    _folder: Path

    @property
    def members(self) -> int:
        """Number of cutouts of all units."""
        return sum(unit.members for unit in self.units)

    def local_place(self, index: int) -> tuple[str, int]:
        """Return the local file that has a unit's members, and the row group. The folder must still exist."""
        number, group = divmod(index, UNITS_PER_FILE)
        return str(_plan_file(self._folder, number)), group

    def sample(self, count: int) -> pa.Table:
        """Return some members, from units all over the plan.

        Args:
            count: Maximum number of members.

        Returns:
            `MEMBER_SCHEMA` without rejected members.
        """
        chosen = np.unique(np.linspace(0, len(self.units) - 1, _SAMPLED_UNITS).astype(int)).tolist()
        tables: list[pa.Table] = []
        for index in chosen if self.units else []:
            members = read_unit_members(*self.local_place(index))
            tables.append(members.filter(pc.is_null(members["reason"])).slice(0, -(-count // len(chosen))))
        return pa.concat_tables([MEMBER_SCHEMA.empty_table(), *tables]).slice(0, count)

    def write(self, catalog: str, run_id: str) -> list[tuple[str, int]]:
        """Store the members in the catalog, as Parquet with one row group per unit.

        Returns:
            For each unit, in the order of `units`, the file that has its members, and the row group.

        Raises:
            OSError: It cannot be written.
            TransientError: The store kept failing.
        """
        for number in range(-(-len(self.units) // UNITS_PER_FILE)):
            file = _plan_file(self._folder, number)
            storage.write_bytes(layout.plan_file(catalog, run_id, number), file.read_bytes())
        places = (divmod(index, UNITS_PER_FILE) for index in range(len(self.units)))
        return [(layout.plan_file(catalog, run_id, number), group) for number, group in places]


def read_unit_members(plan_uri: str, row_group: int) -> pa.Table:
    """Read the members of one unit of a stored plan.

    Returns:
        `MEMBER_SCHEMA`.

    Raises:
        FatalError: The plan is missing or damaged.
        TransientError: The store kept failing.
    """
    try:
        with storage.open_binary(plan_uri) as file:
            return pq.ParquetFile(file).read_row_group(row_group, use_threads=False).cast(MEMBER_SCHEMA)
    except (OSError, pa.ArrowException) as error:
        raise FatalError(f"the plan {plan_uri} cannot be read: {error}") from error


def find_members(catalog: str, run_id: str, source_uris: Sequence[str]) -> pa.Table:
    """Find some members in the plan that a run has stored.

    Args:
        catalog: URI of the catalog.
        run_id: Id of the run.
        source_uris: `source_uri` of each member.

    Returns:
        `MEMBER_SCHEMA`, in any order, without members that the plan does not contain.

    Raises:
        FatalError: The plan is damaged.
        TransientError: The store kept failing.
    """
    wanted = pa.array(source_uris, pa.string())
    found = [MEMBER_SCHEMA.empty_table()]
    for info in list_objects(layout.plan_folder(catalog, run_id), missing_ok=True):
        try:
            with storage.open_binary(info.uri) as binary:
                file = pq.ParquetFile(binary)
                for group in range(file.num_row_groups):
                    names = file.read_row_group(group, columns=["source_uri"])["source_uri"]
                    mine = pc.is_in(names, wanted)
                    if pc.any(mine).as_py():
                        found.append(file.read_row_group(group).cast(MEMBER_SCHEMA).filter(mine))
        except (OSError, pa.ArrowException) as error:
            raise FatalError(f"the plan {info.uri} cannot be read: {error}") from error
    return pa.concat_tables(found)


def make_plan(
    listing: Iterable[pa.Table],
    known: Iterable[pa.Table],
    units: Mapping[str, tuple[str, str]],
    *,
    settings_fingerprint: str,
    unit_size: int,
    folder: Path,
    positions: Iterable[pa.Table] = (),
    full: bool = False,
    prune: bool = False,
    max_attempts: int = MAX_ATTEMPTS,
    settled: SettledShards | None = None,
) -> Plan:
    """Compare a listing with a catalog.

    Args:
        listing: Batches of `MEMBER_SCHEMA`, in any order, with `source_uri` unique in all of them.
        known: `Catalog.members()`.
        units: `Catalog.units()`.
        settings_fingerprint: Digest of bundle and settings. Units with another digest are redone.
        unit_size: Maximum number of members of a new unit. Whole fields and shards share a unit
            (see `gax_batch.planning.partition`).
        folder: An empty folder on a local disk, in which the plan keeps its members.
        positions: Batches of `POSITION_SCHEMA`. They take precedence over the listing's own. A galaxy without
            a position in either keeps its position in the catalog.
        full: Redo every unit that has a member in the listing.
        prune: Remove vanished members: redo their units, and remove units of which nothing is left.
        max_attempts: Maximum number of runs that retry a cutout after a storage error.
        settled: Shards that the listing, and then `known`, omitted.

    Returns:
        The plan. In a unit, members are sorted by object, and by row within a shard.

    Raises:
        UsageError: `unit_size` is not positive, a galaxy has two positions, galaxies of a unit that
            vanished as a whole are now listed under other URIs, or the disk is full.
        ClaimError: A galaxy of an omitted shard has the id of a listed one: list all shards.
    """
    if unit_size < 1:
        raise UsageError(f"the unit size must be at least 1, not {unit_size}")
    stale = {unit: settings != settings_fingerprint for unit, (settings, _) in units.items()}
    planned: list[Unit] = []
    rejects: Counter[str] = Counter()
    with Scratch(folder) as scratch, _UnitFiles(folder) as files:
        diff = Difference(
            scratch,
            listing,
            known,
            stale,
            positions=positions,
            full=full,
            prune=prune,
            max_attempts=max_attempts,
        )
        if settled is not None:
            _refuse_claims(diff, settled)
        for block, bounds in partition(diff.members(), unit_size):
            planned += _describe(block, bounds)
            rejects.update(block["reason"].drop_null().to_pylist())
            files.write(block.select(MEMBER_SCHEMA.names).cast(MEMBER_SCHEMA), bounds)
        counts = diff.counts(passed_over=0 if settled is None else settled.cutouts)
        return Plan(planned, counts, dict(rejects), diff.removed(), diff.matched, folder)


class ClaimError(Exception):
    """A plan cannot be made without listing the unchanged shards."""


def _refuse_claims(diff: Difference, settled: SettledShards) -> None:
    if not settled.units:
        return
    claimed = list(islice(diff.claimed_ids(), _MAX_LOOKED_UP + 1))
    # Millions of claimed ids are joined faster than they are looked up.
    if len(claimed) > _MAX_LOOKED_UP:
        raise ClaimError
    wanted = pa.array(claimed, pa.string())
    for table in settled.holders(claimed):
        if pc.any(pc.is_in(table["galaxy_id"], wanted)).as_py():
            raise ClaimError


def _describe(block: pa.Table, bounds: list[int]) -> list[Unit]:
    begin = pa.array(bounds[:-1])
    names = block["unit_id"].take(begin).to_pylist()
    reasons = block["why"].take(begin).to_pylist()
    born = _digests(block, ["source_uri"], bounds) if None in names else names
    prints = _digests(block, _FINGERPRINTED, bounds)
    return [
        Unit(name or new, fingerprint, reason or NEW, stop - start, size, whole)
        for name, new, fingerprint, reason, (start, stop), size, whole in zip(
            names,
            born,
            prints,
            reasons,
            pairwise(bounds),
            _bytes(block, bounds),
            are_whole(block, bounds),
            strict=True,
        )
    ]


def _digests(block: pa.Table, names: Sequence[str], bounds: Sequence[int]) -> list[str]:
    """Return the first 16 hex digits of SHA-256 over some columns of each unit's members."""
    texts = [_as_text(block[name]) for name in names]
    # The empty last field ends each member with a separator.
    joined = pc.binary_join_element_wise(
        *texts, "", _SEPARATOR, null_handling="replace", null_replacement="\0"
    )
    array = pa.concat_arrays(pa.chunked_array(joined).chunks)
    ends = np.frombuffer(array.buffers()[1], np.int32)[array.offset :]
    data = memoryview(array.buffers()[2])
    return [
        hashlib.sha256(data[ends[start] : ends[stop]]).hexdigest()[:_DIGEST_CHARACTERS]
        for start, stop in pairwise(bounds)
    ]


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_floating(column.type):
        # The bits of a float are exact, and do not depend on how floats are printed.
        column = pa.chunked_array([chunk.view(pa.int64()) for chunk in column.chunks], pa.int64())
    return pc.cast(column, pa.string())


def _bytes(block: pa.Table, bounds: Sequence[int]) -> list[int | None]:
    sizes: npt.NDArray[np.int64] = pc.fill_null(block["size"], -1).to_numpy()
    totals = np.add.reduceat(np.maximum(sizes, 0), bounds[:-1])
    unknown = np.add.reduceat((sizes < 0).astype(np.int64), bounds[:-1])
    return [None if missing else int(total) for total, missing in zip(totals, unknown, strict=True)]


class _UnitFiles:
    """Writes units, as row groups, to a sequence of local files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: pq.ParquetWriter | None = None
        self._count = 0

    def __enter__(self) -> "_UnitFiles":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, block: pa.Table, bounds: Sequence[int]) -> None:
        for start, stop in pairwise(bounds):
            if self._writer is None or self._count % UNITS_PER_FILE == 0:
                self.__exit__()
                # Without statistics: no reader searches for values here, and each reader parses the footer.
                path = _plan_file(self._folder, self._count // UNITS_PER_FILE)
                self._writer = pq.ParquetWriter(
                    path, MEMBER_SCHEMA, compression="zstd", write_statistics=False
                )
            self._writer.write_table(block.slice(start, stop - start), row_group_size=stop - start)
            self._count += 1


def _plan_file(folder: Path, number: int) -> Path:
    return folder / f"{number:06}.parquet"
