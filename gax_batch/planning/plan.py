"""What a run must process: the difference between a listing and a catalog, in units of work.

A member of the listing is new, or known to the catalog by its `source_uri`. A known member that changed
(version, id, position, or whether the listing rejects it) makes its whole unit be redone under its old
name; new members form new units. Members that vanished stay in the catalog until their unit is redone,
or are pruned.
One `galaxy_id` belongs to one galaxy of the whole catalog: the galaxy that has it keeps it while it is
listed; once it vanished, a listed one that claims the id gets it, and the vanished one's unit is redone.

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
"""Cutouts that show in seconds whether a run can read its input, and how fast."""

_SAMPLED_UNITS = 8
_MAX_LOOKED_UP = 1_000_000
_DIGEST_CHARACTERS = 16
_FINGERPRINTED = ("source_uri", "source_version", "galaxy_id", "ra", "dec", "reason")
_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit to process.

    Attributes:
        unit_id: Its name: a digest of its members' URIs when it was new. Never changes.
        fingerprint: Digest of its members now, their versions, ids and positions.
        reason: Why: `new`, `changed`, `model changed`, `retried` or `forced`.
        members: How many there are.
        bytes: Size of all members together; None if it is not known.
        whole: Whether it is all of one or several shards, see `PartName.origin`.
    """

    unit_id: str
    fingerprint: str
    reason: str
    members: int
    bytes: int | None
    whole: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The units of a run and, in files below a folder of the caller's, their members."""

    units: list[Unit]
    counts: PlanCounts
    rejects: Mapping[str, int]
    """Members that are rejected already, by reason."""
    removed: list[str]
    """Units of the catalog that are taken out, since all their members vanished."""
    matched: PositionMatch
    """How the table of positions fits the listing."""
    _folder: Path

    @property
    def members(self) -> int:
        """Cutouts of all units."""
        return sum(unit.members for unit in self.units)

    def local_place(self, index: int) -> tuple[str, int]:
        """Return the local file that has a unit's members, while its folder is there, and the row group."""
        number, group = divmod(index, UNITS_PER_FILE)
        return str(_plan_file(self._folder, number)), group

    def sample(self, count: int) -> pa.Table:
        """Return some members, from units all over the plan.

        Returns:
            `MEMBER_SCHEMA`; none of them is rejected already.
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
        catalog: The catalog's URI.
        run_id: The run.
        source_uris: Of the members.

    Returns:
        `MEMBER_SCHEMA`, in no order; a member that the plan does not have, or no longer, is missing.

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
        listing: Batches of `MEMBER_SCHEMA`, in any order, `source_uri` unique in all of them.
        known: `Catalog.members()`.
        units: `Catalog.units()`.
        settings_fingerprint: Digest of bundle and settings; units of another one are redone.
        unit_size: Members of a new unit, at most. Whole fields and shards share a unit
            (see `gax_batch.planning.partition`).
        folder: An empty folder on a local disk; the plan keeps its members there.
        positions: Batches of `POSITION_SCHEMA`; they stand above the listing's own. A galaxy that
            neither has keeps its position in the catalog.
        full: Redo every unit that has a member in the listing.
        prune: Take out what vanished: redo its units, and remove those of which nothing is left.
        max_attempts: Runs that try a cutout again which the storage did not give.
        settled: What the listing, and then `known`, passed over.

    Returns:
        The plan. In a unit, members are sorted by object, and by row within a shard.

    Raises:
        UsageError: `unit_size` is not positive, a galaxy has two positions, galaxies of a unit that
            vanished as a whole are now listed under other URIs, or the disk is full.
        ClaimError: A galaxy that is settled has the id of a listed one: pass nothing over.
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
    """A plan cannot be made from what is not settled alone."""


def _refuse_claims(diff: Difference, settled: SettledShards) -> None:
    if not settled.units:
        return
    claimed = list(islice(diff.claimed_ids(), _MAX_LOOKED_UP + 1))
    # What millions of galaxies claim is better joined than looked up.
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
        # Exact, and the same wherever and however floats are printed.
        column = pa.chunked_array([chunk.view(pa.int64()) for chunk in column.chunks], pa.int64())
    return pc.cast(column, pa.string())


def _bytes(block: pa.Table, bounds: Sequence[int]) -> list[int | None]:
    sizes: npt.NDArray[np.int64] = pc.fill_null(block["size"], -1).to_numpy()
    totals = np.add.reduceat(np.maximum(sizes, 0), bounds[:-1])
    unknown = np.add.reduceat((sizes < 0).astype(np.int64), bounds[:-1])
    return [None if missing else int(total) for total, missing in zip(totals, unknown, strict=True)]


class _UnitFiles:
    """Writes units, as row groups, into one local file after the other."""

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
                # Without statistics: nobody looks for values here, and each reader has to parse the footer.
                path = _plan_file(self._folder, self._count // UNITS_PER_FILE)
                self._writer = pq.ParquetWriter(
                    path, MEMBER_SCHEMA, compression="zstd", write_statistics=False
                )
            self._writer.write_table(block.slice(start, stop - start), row_group_size=stop - start)
            self._count += 1


def _plan_file(folder: Path, number: int) -> Path:
    return folder / f"{number:06}.parquet"
