"""One unit's way through a run as three plain functions: read, infer, write.

The engine that spreads them over machines (`gax_batch.cluster.pipeline`) adds nothing to them, and each can
be called without it. Between the steps travels one Arrow table, the *block*: a row per planned
cutout, rejected ones included, so that conservation is the block's length. A unit that failed as a
whole is a block of one row that holds the cause.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.catalog import layout
from gax_batch.catalog.completion import UnitRows, can_complete, complete, unread_cutouts
from gax_batch.catalog.draws import draws_table
from gax_batch.catalog.layout import PartName
from gax_batch.catalog.parts import Part, read_part, write_unit
from gax_batch.catalog.schema import GALAXIES, REJECTS, galaxies_table, rejects_table
from gax_batch.catalog.sums import Grouping, add_up, sums_of
from gax_batch.errors import FatalError, GaxError, TransientError
from gax_batch.imaging.cutout import IMAGE_SIDE
from gax_batch.imaging.decoding import Decoder
from gax_batch.models.domain import Counts, Reference
from gax_batch.models.uncertainty import Summary
from gax_batch.planning.plan import read_unit_members
from gax_batch.rejects import Reason, Reject, Stage
from gax_batch.sources import read_unit, set_rejects, shards_of

# The block's column that says which unit it is and how it fared; the same JSON in every row.
STATE = "_state"
# A unit's companions travel in the first row, as Arrow IPC, in a column for each kind.
_COMPANION = "_companion_"

NOT_BEGUN = "the run was told to stop before it began"
"""The failure of a unit that is left for the next run."""

NOTHING_EXCLUDED: Mapping[int, Reject] = MappingProxyType({})

SLICE_ROWS = 256
"""Cutouts whose draws are in memory at once, as many as a GPU's micro-batch: a unit's would be too large."""


@dataclass(frozen=True, slots=True)
class UnitTask:
    """A pointer to one planned unit: what travels to a worker instead of the unit's members.

    `bytes` are those of its objects as far as the listing tells. `base` is the key of a part of the same
    members and settings: only the cutouts that the storage failed to give then are read and classified.
    """

    plan_uri: str
    row_group: int
    unit_id: str
    fingerprint: str
    planned: int
    whole: bool = False
    bytes: int = 0
    base: str | None = None


@dataclass(frozen=True, slots=True)
class UnitOptions:
    """What the three steps need to know of a run.

    With `reference`, each unit counts how its images compare with it (`gax_batch.models.domain`).
    """

    catalog: str
    settings_fingerprint: str
    bundle_id: str
    run_id: str
    decoder: Decoder
    grouping: Grouping = field(default_factory=Grouping)
    keep_draws: bool = False
    reference: Reference | None = None


@dataclass(frozen=True, slots=True)
class UnitState:
    """Which unit a block is, the cause if it failed, and the seconds of work by step.

    `bytes_read` are those of its objects as far as the listing tells; `worker` is the engine's process;
    `images` are the part's (see `gax_batch.catalog.parts.Part`).
    """

    unit_id: str
    fingerprint: str
    planned: int
    failure: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    whole: bool = False
    bytes_read: int = 0
    worker: str = ""
    images: str | None = None
    base: str | None = None

    def took(self, step: str, start: float, failure: str | None = None) -> "UnitState":
        """The state after a step that began at `start` (of `time.monotonic`)."""
        return replace(self, failure=failure, seconds={**self.seconds, step: time.monotonic() - start})


@dataclass(frozen=True, slots=True)
class UnitResult:
    """How a unit ended: with its part, or with the failure that its state names."""

    state: UnitState
    part: Part | None


class Engine(Protocol):
    """What a unit needs of the models."""

    def summarize(self, images: npt.NDArray[np.uint8]) -> Summary:
        """Classify cutouts `[N, 64, 64, 3]`."""


def read(task: UnitTask, options: UnitOptions, excluded: Mapping[int, Reject] = NOTHING_EXCLUDED) -> pa.Table:
    """Read and decode a unit's cutouts into its block; those set aside, by place, are rejected unread."""
    start = time.monotonic()
    state = _state_of(task)
    try:
        members = set_rejects(read_unit_members(task.plan_uri, task.row_group), excluded)
        if _has_base(task, options):
            unread = unread_cutouts(options.catalog, str(task.base))
            members = members.filter(pc.is_in(members["source_uri"], unread.combine_chunks()))
            state = replace(state, base=task.base)
            cutouts = _read_again(members, options.decoder)
        else:
            cutouts = read_unit(members, options.decoder)
    except GaxError as error:
        return _block(None, state.took("read", start, failure=f"reading failed: {error}"))
    state = replace(state, bytes_read=pc.sum(members["size"]).as_py() or 0)
    if options.reference is not None:
        # Here rather than beside a GPU, which classifies a cutout in about the same time.
        state = replace(state, images=_count(cutouts, options.reference).to_json())
    return _block(cutouts, state.took("read", start))


def _has_base(task: UnitTask, options: UnitOptions) -> bool:
    """Whether there is a part that the unit's unread cutouts can be added to."""
    return task.base is not None and can_complete(
        options.catalog, task.base, options.grouping, keep_draws=options.keep_draws
    )


def _read_again(members: pa.Table, decoder: Decoder) -> pa.Table:
    """Read cutouts that the storage failed to give before; what it fails to give again is rejected."""
    try:
        return read_unit(members, decoder)
    except (TransientError, FatalError) as error:
        # That all of these few fail is no sign that the storage fails as a whole.
        reject = Reject.of(Stage.READ, Reason.UNREADABLE, str(error))
        waiting = np.flatnonzero(pc.is_null(members["reason"]).to_numpy()).tolist()
        return read_unit(set_rejects(members, dict.fromkeys(waiting, reject)), decoder)


def _count(cutouts: pa.Table, reference: Reference) -> Counts:
    """How the images of the good ones of read cutouts compare with a reference."""
    slices = (cutouts.slice(start, SLICE_ROWS) for start in range(0, len(cutouts), SLICE_ROWS))
    good = (some.filter(pc.is_null(some["reason"])) for some in slices)
    return sum((reference.count(_images(some["cutout"])) for some in good), Counts())


def leave_out(unit: UnitTask | pa.Table) -> pa.Table:
    """The block of a unit that is not begun, or read but not inferred, since the run was told to stop."""
    state = _state_of(unit) if isinstance(unit, UnitTask) else state_of(unit)
    return _block(None, replace(state, failure=NOT_BEGUN))


def worker_name() -> str:
    """This process among those of the cluster: `host/process id`."""
    return f"{socket.gethostname()}/{os.getpid()}"


def _no_matter(cutouts: int) -> None: ...


def infer(
    block: pa.Table, engine: Engine, options: UnitOptions, advance: Callable[[int], None] = _no_matter
) -> pa.Table:
    """Classify a block's good cutouts: the catalog's columns take the place of the pixels.

    Args:
        block: Of `read`.
        engine: The models.
        options: Of the run.
        advance: Told the number of cutouts of each slice that is done.
    """
    state = replace(state_of(block), worker=worker_name())
    if state.failure is not None:
        return block
    start = time.monotonic()
    good, rejected = _split(block)
    try:
        galaxies, beside = _classify(good, engine, options, state.unit_id, advance)
    except GaxError as error:
        return _block(None, state.took("infer", start, failure=f"inference failed: {error}"))
    rejects = rejects_table(rejected, unit_id=state.unit_id, run_id=options.run_id)
    rows = pa.concat_tables([galaxies, rejects], promote_options="default")
    for kind, table in beside.items():
        rows = rows.append_column(_COMPANION + kind, _in_first_row(table, len(rows)))
    return _block(rows, state.took("infer", start))


def _classify(
    good: pa.Table, engine: Engine, options: UnitOptions, unit_id: str, advance: Callable[[int], None]
) -> tuple[pa.Table, dict[str, pa.Table]]:
    """The catalog's rows of good cutouts, and the unit's companions by kind."""
    images = _images(good["cutout"])
    galaxies, sums, kept = [], [], []
    for start in range(0, max(len(images), 1), SLICE_ROWS):
        some = good.slice(start, SLICE_ROWS)
        summary = engine.summarize(images[start : start + SLICE_ROWS])
        rows = galaxies_table(
            some, summary.columns(), unit_id=unit_id, bundle_id=options.bundle_id, run_id=options.run_id
        )
        galaxies.append(rows)
        sums.append(sums_of(rows, summary.draws, options.grouping))
        if options.keep_draws:
            kept.append(draws_table(rows["galaxy_id"], summary.draws))
        advance(len(some))
    beside = {layout.POPULATION: add_up(sums)} | ({layout.DRAWS: pa.concat_tables(kept)} if kept else {})
    return pa.concat_tables(galaxies), beside


def write(block: pa.Table, options: UnitOptions) -> UnitResult:
    """Store a block as its unit's part of the catalog, with the rejects beside it.

    Raises:
        FatalError: cutouts were lost or doubled on the way.
    """
    state = state_of(block)
    if state.failure is not None:
        return UnitResult(state, None)
    start = time.monotonic()
    try:
        unit = _rows(block, options.catalog, state.base)
    except GaxError as error:
        return UnitResult(state.took("write", start, failure=f"completing failed: {error}"), None)
    try:
        part = write_unit(
            options.catalog,
            options.settings_fingerprint,
            unit.galaxies,
            unit.rejects,
            unit_id=state.unit_id,
            fingerprint=state.fingerprint,
            planned=state.planned,
            origins=_origins(unit) if state.whole else [],
            beside=unit.beside,
            images=_images_of(state, options.catalog),
        )
    except (TransientError, OSError) as error:
        return UnitResult(state.took("write", start, failure=f"writing failed: {error}"), None)
    return UnitResult(state.took("write", start), part)


def result_row(result: UnitResult) -> pa.Table:
    """A result as a table of one row, for the way back to the driver."""
    return pa.table({"result": [json.dumps(asdict(result))]})


def parse_result(row: pa.Table) -> UnitResult:
    """The inverse of `result_row`."""
    (text,) = row["result"].to_pylist()
    values = json.loads(text)
    part = None if values["part"] is None else Part(**values["part"])
    return UnitResult(UnitState(**values["state"]), part)


def _block(rows: pa.Table | None, state: UnitState) -> pa.Table:
    if rows is None:
        rows = pa.table({"reason": pa.nulls(1, pa.string())})
    if STATE in rows.column_names:
        rows = rows.drop_columns([STATE])
    return rows.append_column(STATE, pa.repeat(json.dumps(asdict(state)), len(rows)))


def _in_first_row(table: pa.Table, count: int) -> pa.Array:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    # Large: the draws of a unit may have more bytes than 32 bits count.
    return pa.array([sink.getvalue().to_pybytes(), *[None] * (count - 1)], pa.large_binary())


def _companions(block: pa.Table) -> dict[str, pa.Table]:
    columns = [name for name in block.column_names if name.startswith(_COMPANION)]
    return {
        name.removeprefix(_COMPANION): pa.ipc.open_stream(block[name][0].as_buffer()).read_all()
        for name in columns
    }


def _rows(block: pa.Table, catalog: str, base: str | None) -> UnitRows:
    """What a block's unit stores."""
    galaxies, rejects = _split(block)
    rows = UnitRows(
        galaxies.select(GALAXIES.names).cast(GALAXIES),
        rejects.select(REJECTS.names).cast(REJECTS),
        _companions(block),
    )
    return rows if base is None else complete(catalog, base, rows)


def _images_of(state: UnitState, catalog: str) -> str | None:
    """How all images of a unit compare with the reference, those of its base among them."""
    name = None if state.base is None else PartName.parse(state.base)
    base = None if name is None else read_part(catalog, name)
    if base is None or base.images is None or state.images is None:
        return state.images
    return Counts.add_up([base.images, state.images]).to_json()


def _origins(unit: UnitRows) -> list[str]:
    """The shards that a unit's cutouts are rows of."""
    columns = ["source_uri", "source_version"]
    rows = pa.concat_tables([unit.galaxies.select(columns), unit.rejects.select(columns)])
    objects = shards_of(rows["source_uri"]).to_pylist()
    found = dict.fromkeys(zip(objects, rows["source_version"].to_pylist(), strict=True))
    return [layout.origin_of(uri, version) for uri, version in found]


def _state_of(task: UnitTask) -> UnitState:
    return UnitState(task.unit_id, task.fingerprint, task.planned, whole=task.whole)


def state_of(block: pa.Table) -> UnitState:
    """Which unit a block is, and how it has fared."""
    return UnitState(**json.loads(block[STATE][0].as_py()))


def _split(block: pa.Table) -> tuple[pa.Table, pa.Table]:
    good = pc.is_null(block["reason"])
    return block.filter(good), block.filter(pc.invert(good))


def _images(cutouts: pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    shape = (len(cutouts), IMAGE_SIDE, IMAGE_SIDE, 3)
    if len(cutouts) == 0:
        return np.empty(shape, np.uint8)
    array = pa.concat_arrays(cutouts.chunks)
    pixels = np.frombuffer(array.buffers()[1], np.uint8)
    size = IMAGE_SIDE * IMAGE_SIDE * 3
    return pixels[array.offset * size : (array.offset + len(array)) * size].reshape(shape)
