"""The three steps of a unit as plain functions: read, infer, write.

Each takes and returns a `UnitResult`. The functions do not depend on Ray;
`gax_batch.cluster.workers` reports and limits them, and `gax_batch.cluster.pipeline` runs them on Ray.
Between reading and writing a unit has one row per planned cutout, including the rejected ones. Writing checks
that the number of galaxies and rejects equals the number of planned cutouts.
"""

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
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
from gax_batch.cluster.arrow_cells import record_cell, record_of, single_array, table_cell, table_of
from gax_batch.errors import FatalError, GaxError, TransientError
from gax_batch.imaging.cutout import IMAGE_SIDE
from gax_batch.imaging.decoding import Decoder
from gax_batch.models.domain import Counts, Reference
from gax_batch.models.uncertainty import Summary
from gax_batch.planning.plan import read_unit_members
from gax_batch.rejects import Reason, Reject, Stage
from gax_batch.sources import read_unit, set_rejects, shards_of

_COMPANION = "companion_"
"""Prefix of the columns of a block that hold companions; the rest is the companion's kind."""

NOTHING_EXCLUDED: Mapping[int, Reject] = MappingProxyType({})

SLICE_ROWS = 256
"""Cutouts whose draws are in memory at once, a micro-batch of a GPU. Draws of a whole unit are too large."""

COMPARED_ROWS = 512
"""Cutouts of a unit, evenly spaced, whose images are compared with the reference."""


@dataclass(frozen=True, slots=True)
class UnitTask:
    """A pointer to one planned unit, which is sent to a worker instead of the members of the unit.

    Attributes:
        plan_uri: The file of the plan that lists the members.
        row_group: The row group of the unit in that file.
        unit_id: The unit.
        fingerprint: Digest of the unit's members.
        planned: Number of cutouts.
        whole: Whether the unit is all of the objects that it is read from.
        bytes: Size of its objects according to the listing.
        base: Key of a part with the same members and settings. If given, only the cutouts that the storage
            failed to return for that part are read and classified.
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
    """The options of a run that the three steps need.

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


class UnitStatus(StrEnum):
    """The last step that a unit has completed, or the reason why it has none."""

    NOT_BEGUN = "not begun"
    """The unit is left for the next run, because this run is stopping."""
    READ = "read"
    INFERRED = "inferred"
    STORED = "stored"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class UnitState:
    """The identity of a unit and the record of its steps.

    Attributes:
        unit_id: The unit.
        fingerprint: Digest of the unit's members.
        planned: Number of cutouts.
        failure: The cause, if the unit failed.
        seconds: Seconds of work by step.
        whole: See `UnitTask`.
        bytes_read: Size of the objects that were read, according to the listing.
        worker: The process that ran the inference, `host/process id`.
        images: See `gax_batch.catalog.parts.Part`.
        base: See `UnitTask`; None if the base could not be completed.
        status: The last step that was completed.
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
    status: UnitStatus = UnitStatus.NOT_BEGUN

    @classmethod
    def of(cls, task: UnitTask) -> "UnitState":
        """Return the state of a unit that is not begun."""
        return cls(task.unit_id, task.fingerprint, task.planned, whole=task.whole)

    def after(self, step: str, start: float, status: UnitStatus) -> "UnitState":
        """Return the state after a step that began at `start` (of `time.monotonic`)."""
        return replace(self, status=status, seconds={**self.seconds, step: time.monotonic() - start})

    def failed(self, step: str, start: float, cause: str) -> "UnitState":
        """Return the state after a step that failed."""
        return replace(self.after(step, start, UnitStatus.FAILED), failure=cause)


@dataclass(frozen=True, slots=True)
class UnitResult:
    """The result of a step of a unit.

    Attributes:
        state: The unit and its status.
        part: The stored part (STORED).
        rows: One row per cutout: `CUTOUT_SCHEMA` (READ), or the columns of galaxies and rejects (INFERRED).
        companions: Tables that are stored next to the galaxies, by kind (INFERRED).
    """

    state: UnitState
    part: Part | None = None
    rows: pa.Table | None = None
    companions: Mapping[str, pa.Table] = field(default_factory=dict)

    @classmethod
    def not_begun(cls, unit: UnitTask | UnitState) -> "UnitResult":
        """Return the result of a unit that is left for the next run, with or without its cutouts read."""
        state = UnitState.of(unit) if isinstance(unit, UnitTask) else unit
        return cls(replace(state, status=UnitStatus.NOT_BEGUN, failure=None))

    def to_arrow(self) -> pa.Table:
        """Return a table of one row, with a column for each attribute that has a value; copies no pixels."""
        cells = {"state": record_cell(asdict(self.state))}
        if self.part is not None:
            cells["part"] = record_cell(asdict(self.part))
        if self.rows is not None:
            cells["rows"] = table_cell(self.rows)
        return pa.table(cells | {_COMPANION + kind: table_cell(it) for kind, it in self.companions.items()})

    @classmethod
    def from_arrow(cls, block: pa.Table) -> "UnitResult":
        """Return the result that `to_arrow` has made a block of; copies no pixels."""
        state = record_of(block["state"])
        names = block.column_names
        return cls(
            UnitState(**state | {"status": UnitStatus(state["status"])}),
            Part(**record_of(block["part"])) if "part" in names else None,
            table_of(block["rows"]) if "rows" in names else None,
            {
                name.removeprefix(_COMPANION): table_of(block[name])
                for name in names
                if name.startswith(_COMPANION)
            },
        )


class Summarizer(Protocol):
    """The interface of the models that the inference of a unit uses."""

    def summarize(self, images: npt.NDArray[np.uint8]) -> Summary:
        """Classify cutouts `[N, 64, 64, 3]`."""


def read(
    task: UnitTask, options: UnitOptions, excluded: Mapping[int, Reject] = NOTHING_EXCLUDED
) -> UnitResult:
    """Read and decode the cutouts of a unit.

    Args:
        task: The unit.
        options: Options of the run.
        excluded: Rejects of cutouts that are not read, by their index in the unit.
    """
    start = time.monotonic()
    state = UnitState.of(task)
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
        return UnitResult(state.failed("read", start, f"reading failed: {error}"))
    state = replace(state, bytes_read=pc.sum(members["size"]).as_py() or 0)
    if options.reference is not None:
        # Counted here, on a CPU: it takes about as long as a GPU needs to classify as many cutouts.
        state = replace(state, images=_count(cutouts, options.reference).to_json())
    return UnitResult(state.after("read", start, UnitStatus.READ), rows=cutouts)


def _has_base(task: UnitTask, options: UnitOptions) -> bool:
    """Return whether the task names a part that the unread cutouts can be added to."""
    return task.base is not None and can_complete(
        options.catalog, task.base, options.grouping, keep_draws=options.keep_draws
    )


def _read_again(members: pa.Table, decoder: Decoder) -> pa.Table:
    """Read cutouts that the storage failed to return before; reject those that it fails to return again."""
    try:
        return read_unit(members, decoder)
    except (TransientError, FatalError) as error:
        # These are few cutouts: if all of them fail, the storage as a whole may still work.
        reject = Reject.of(Stage.READ, Reason.UNREADABLE, str(error))
        waiting = np.flatnonzero(pc.is_null(members["reason"]).to_numpy()).tolist()
        return read_unit(set_rejects(members, dict.fromkeys(waiting, reject)), decoder)


def _count(cutouts: pa.Table, reference: Reference) -> Counts:
    """Count how a sample of the cutouts that are not rejected compares with a reference."""
    good = np.flatnonzero(pc.is_null(cutouts["reason"]).to_numpy())
    sample = good[np.unique(np.linspace(0, len(good) - 1, min(len(good), COMPARED_ROWS)).astype(np.intp))]
    return reference.count(_images(cutouts["cutout"])[sample])


def worker_name() -> str:
    """Return the name of this process in the cluster: `host/process id`."""
    return f"{socket.gethostname()}/{os.getpid()}"


def _ignore(cutouts: int) -> None: ...


def infer(
    result: UnitResult, engine: Summarizer, options: UnitOptions, advance: Callable[[int], None] = _ignore
) -> UnitResult:
    """Classify the cutouts of a unit that are not rejected.

    Args:
        result: Result of `read`. A unit that failed or is not begun is returned as it is.
        engine: The models.
        options: Options of the run.
        advance: Called with the number of cutouts of each slice that is done.
    """
    if result.rows is None:
        return result
    state = replace(result.state, worker=worker_name())
    start = time.monotonic()
    good, rejected = _split(result.rows)
    try:
        galaxies, companions = _classify(good, engine, options, state.unit_id, advance)
    except GaxError as error:
        return UnitResult(state.failed("infer", start, f"inference failed: {error}"))
    rejects = rejects_table(rejected, unit_id=state.unit_id, run_id=options.run_id)
    rows = pa.concat_tables([galaxies, rejects], promote_options="default")
    return UnitResult(state.after("infer", start, UnitStatus.INFERRED), rows=rows, companions=companions)


def _classify(
    good: pa.Table, engine: Summarizer, options: UnitOptions, unit_id: str, advance: Callable[[int], None]
) -> tuple[pa.Table, dict[str, pa.Table]]:
    """Return the rows of the catalog for good cutouts, and the companions of the unit by kind."""
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
    companions = {layout.POPULATION: add_up(sums)}
    if kept:
        companions[layout.DRAWS] = pa.concat_tables(kept)
    return pa.concat_tables(galaxies), companions


def write(result: UnitResult, options: UnitOptions) -> UnitResult:
    """Store the galaxies, rejects and companions of a unit as its part of the catalog.

    Args:
        result: Result of `infer`. A unit that failed or is not begun is returned as it is.
        options: Options of the run.

    Raises:
        FatalError: The galaxies and rejects are not as many as the planned cutouts.
    """
    if result.rows is None:
        return result
    state = result.state
    start = time.monotonic()
    try:
        unit = _rows_to_store(result.rows, result.companions, options.catalog, state.base)
    except GaxError as error:
        return UnitResult(state.failed("write", start, f"completing failed: {error}"))
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
            companions=unit.companions,
            images=_images_of(state, options.catalog),
        )
    except (TransientError, OSError) as error:
        return UnitResult(state.failed("write", start, f"writing failed: {error}"))
    return UnitResult(state.after("write", start, UnitStatus.STORED), part)


def _rows_to_store(
    rows: pa.Table, companions: Mapping[str, pa.Table], catalog: str, base: str | None
) -> UnitRows:
    """Return what a unit stores, including the rows of its base."""
    galaxies, rejects = _split(rows)
    new = UnitRows(
        galaxies.select(GALAXIES.names).cast(GALAXIES),
        rejects.select(REJECTS.names).cast(REJECTS),
        companions,
    )
    return new if base is None else complete(catalog, base, new)


def _images_of(state: UnitState, catalog: str) -> str | None:
    """Return how all images of a unit compare with the reference, including those of its base."""
    name = None if state.base is None else PartName.parse(state.base)
    base = None if name is None else read_part(catalog, name)
    if base is None or base.images is None or state.images is None:
        return state.images
    return Counts.add_up([base.images, state.images]).to_json()


def _origins(unit: UnitRows) -> list[str]:
    """Return the digests of the shards that contain the cutouts of a unit."""
    columns = ["source_uri", "source_version"]
    rows = pa.concat_tables([unit.galaxies.select(columns), unit.rejects.select(columns)])
    objects = shards_of(rows["source_uri"]).to_pylist()
    found = dict.fromkeys(zip(objects, rows["source_version"].to_pylist(), strict=True))
    return [layout.origin_of(uri, version) for uri, version in found]


def _split(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the rows that are not rejected, and those that are."""
    good = pc.is_null(rows["reason"])
    if rows["reason"].null_count == len(rows):
        return rows, rows.slice(0, 0)  # a filter would copy the pixels
    return rows.filter(good), rows.filter(pc.invert(good))


def _images(cutouts: pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    """Return cutouts as `[N, 64, 64, 3]`."""
    shape = (len(cutouts), IMAGE_SIDE, IMAGE_SIDE, 3)
    if len(cutouts) == 0:
        return np.empty(shape, np.uint8)
    array = single_array(cutouts)
    pixels = np.frombuffer(array.buffers()[1], np.uint8)
    size = IMAGE_SIDE * IMAGE_SIDE * 3
    return pixels[array.offset * size : (array.offset + len(array)) * size].reshape(shape)
