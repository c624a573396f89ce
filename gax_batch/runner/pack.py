"""Pack a survey into Parquet shards for `gax pack`.

A shard contains cutouts, which are a tenth of the bytes of the images, or the unchanged original images.

Each shard is a unit of the plan. Its name is derived from the members, their versions and the settings, so
that shards that exist already are not made again. Cutouts that cannot be packed are listed in a CSV file
below `rejects/`.
"""

import hashlib
import io
import logging
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from gax_batch import storage
from gax_batch.cluster.progress import Progress
from gax_batch.errors import UsageError
from gax_batch.imaging.decoding import Decoder
from gax_batch.planning.plan import Plan, make_plan, read_unit_members
from gax_batch.rejects import PASSING
from gax_batch.runner.fingerprint import RESULTS_VERSION
from gax_batch.runner.preparation import joined_positions, open_input, report_positions
from gax_batch.runner.settings import PackSettings
from gax_batch.sources import read_originals, read_unit
from gax_batch.storage.listing import list_objects
from gax_batch.system.concurrency import map_processes
from gax_batch.system.cpus import logical_cpus

logger = logging.getLogger(__name__)

# Measured on 4,963 JPEGs of the Galaxy Zoo challenge: level 3 takes the fewest bytes for its time.
COMPRESSION_LEVEL = 3

_SHARD = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}-[0-9a-f]{8}\.parquet")
_COLUMNS = ("galaxy_id", "ra", "dec", "image", "source_uri", "source_version")
# Original images are read, and become a row group, in pieces of this many bytes.
_GROUP_BYTES = 64 * 1024 * 1024
_REJECT_COLUMNS = ("galaxy_id", "source_uri", "source_version", "stage", "reason", "detail")


@dataclass(frozen=True, slots=True)
class PackedSurvey:
    """Contents of a packed survey after `pack_survey`.

    Attributes:
        shards: Shards of the survey.
        written: Shards that were written.
        removed: Shards of an earlier state that were removed.
        failed: Shards that were not written, because the storage failed for some of their cutouts.
        rejects: Rejects by reason, of the shards that were processed.
    """

    shards: int
    written: int
    removed: int
    failed: int
    rejects: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Task:
    plan_file: str
    row_group: int
    members: int
    uri: str
    decoder: Decoder
    originals: bool


@dataclass(frozen=True, slots=True)
class _Packed:
    members: int
    written: bool
    rejects: dict[str, int]


def pack_survey(
    settings: PackSettings,
    *,
    originals: bool = False,
    processes: int | None = None,
    replace: bool = False,
) -> PackedSurvey:
    """Pack a survey. Shards that exist already are kept.

    Args:
        settings: Settings of the survey, the decoding, and the folder or prefix of the shards.
        originals: Pack the original images instead of their cutouts.
        processes: Number of worker processes; one per core if None.
        replace: Remove the shards of an earlier state of the survey once the new ones are written.

    Raises:
        UsageError: The input is wrong, or the output contains other files.
        TransientError: The store kept failing.
        FatalError: The storage refused nearly everything, or a process was terminated.
    """
    if originals and settings.frames:
        raise UsageError("galaxies on frames do not have their own image files; omit --originals")
    output = storage.normalize_uri(settings.output)
    with tempfile.TemporaryDirectory(prefix="gax-") as folder:
        plan = make_plan(
            open_input(settings, output, keep_index=True, index_folder=settings.frame_index).list_members(),
            [],
            {},
            settings_fingerprint="",
            unit_size=settings.unit_size,
            folder=Path(folder),
            positions=joined_positions(settings),
        )
        report_positions(settings, plan)
        tasks = _tasks(plan, output, settings.decoder, originals=originals)
        outdated = _outdated(output, {task.uri for task in tasks}, replace=replace)
        present = {info.uri for info in list_objects(output, missing_ok=True)}
        missing = [task for task in tasks if task.uri not in present]
        logger.info(
            f"{plan.members:,} cutouts in {len(tasks):,} shards, {len(missing):,} of which must be packed"
        )
        storage.check_writable(output)
        progress = Progress(planned=sum(task.members for task in missing))
        rejects: Counter[str] = Counter()
        failed = 0
        for packed in map_processes(_pack, missing, processes or logical_cpus()):
            rejects.update(packed.rejects)
            failed += not packed.written
            progress.advance(packed.members, rejects.total())
    for uri in outdated if not failed else ():
        storage.delete(uri)
        storage.delete(_rejects_uri(uri))
    return PackedSurvey(
        shards=len(tasks),
        written=len(missing) - failed,
        removed=0 if failed else len(outdated),
        failed=failed,
        rejects=dict(rejects),
    )


def _tasks(plan: Plan, output: str, decoder: Decoder, *, originals: bool) -> list[_Task]:
    # Besides the members of the unit, only these values determine the contents of a shard.
    decisive = ("originals", decoder.limits.bytes) if originals else (RESULTS_VERSION, asdict(decoder))
    settings = hashlib.sha256(repr(decisive).encode()).hexdigest()[:8]
    return [
        _Task(
            *plan.local_place(index),
            unit.members,
            storage.join(output, f"{unit.unit_id}-{unit.fingerprint}-{settings}.parquet"),
            decoder,
            originals,
        )
        for index, unit in enumerate(plan.units)
    ]


def _outdated(output: str, wanted: set[str], *, replace: bool) -> list[str]:
    """Return the shards of an earlier state of the survey.

    Raises:
        UsageError: They may not be replaced, or the output contains other files.
    """
    there = [info.uri for info in list_objects(output, missing_ok=True)]
    rejects = {_rejects_uri(uri) for uri in there}
    others = [uri for uri in there if uri not in wanted and uri not in rejects]
    for uri in others:
        name = uri.rsplit("/", 1)[-1]
        if _SHARD.fullmatch(name) is None and not (name.endswith(".csv") and "/rejects/" in uri):
            raise UsageError(f"{output} already contains other files ({uri}); choose an empty folder")
    shards = [uri for uri in others if uri.endswith(".parquet")]
    if shards and not replace:
        raise UsageError(
            f"{output} contains {len(shards)} shards of another survey, or of this one before it changed; "
            "choose another folder, or pass --replace to remove them after packing"
        )
    return shards


def _rejects_uri(uri: str) -> str:
    folder, _, name = uri.rpartition("/")
    return storage.join(folder, "rejects", name.removesuffix(".parquet") + ".csv")


def _pack(task: _Task) -> _Packed:
    members = read_unit_members(task.plan_file, task.row_group)
    rejects: list[pa.Table] = []
    with tempfile.TemporaryDirectory(prefix="gax-") as folder:
        shard = Path(folder) / "shard.parquet"
        with _Shard(shard) as writer:
            for rows in _read(task, members):
                bad = pc.is_valid(rows["reason"])
                rejects.append(rows.filter(bad).select(_REJECT_COLUMNS))
                writer.write(rows.filter(pc.invert(bad)).select(_COLUMNS))
        rejected = pa.concat_tables(rejects)
        counts = {item["values"]: item["counts"] for item in pc.value_counts(rejected["reason"]).to_pylist()}
        if not PASSING.isdisjoint(counts):
            # A later attempt may read these cutouts. A shard without them would never be replaced.
            return _Packed(task.members, False, counts)
        if len(rejected):
            text = io.BytesIO()
            pa_csv.write_csv(rejected, text)
            storage.write_bytes(_rejects_uri(task.uri), text.getvalue())
        storage.upload(shard, task.uri)
    return _Packed(task.members, True, counts)


def _read(task: _Task, members: pa.Table) -> Iterator[pa.Table]:
    """Yield the rows of a unit with images: all cutouts at once, originals in groups that fit into memory."""
    if not task.originals:
        cutouts = read_unit(members, task.decoder)
        yield cutouts.rename_columns(["image" if n == "cutout" else n for n in cutouts.column_names])
        return
    limit = task.decoder.limits.bytes
    sizes = np.cumsum(np.minimum(pc.fill_null(members["size"], limit).to_numpy(), limit))
    starts = np.flatnonzero(np.diff(sizes // _GROUP_BYTES, prepend=-1)).tolist()
    for start, stop in pairwise([*starts, len(members)]):
        yield read_originals(members.slice(start, stop - start), task.decoder)


class _Shard:
    """Writes a shard; each table is a row group."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> "_Shard":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, table: pa.Table) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._path,
                table.schema,
                compression="zstd",
                compression_level=COMPRESSION_LEVEL,
                use_dictionary=["source_version"],
                write_statistics=["galaxy_id", "ra", "dec"],
            )
        self._writer.write_table(table, row_group_size=max(len(table), 1))
