"""Cutouts of cataloged galaxies, read again from their sources, since a catalog does not store pixels."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch import storage
from gax_batch.catalog.snapshots import read_run_record
from gax_batch.errors import FatalError, TransientError
from gax_batch.imaging.cutout import IMAGE_SIDE
from gax_batch.imaging.decoding import Decoder
from gax_batch.imaging.limits import ImageLimits
from gax_batch.imaging.rgb import PRESETS
from gax_batch.planning.plan import find_members
from gax_batch.rejects import Reason, Reject, Stage
from gax_batch.sources import MovedSources, locate_members, on_frames, read_unit

Rows = npt.NDArray[np.int64]

NEEDED = ("galaxy_id", "ra", "dec", "source_uri", "source_version", "run_id")
"""The catalog's columns that are needed to find a cutout."""
PLAN_GONE = Reject.of(Stage.PLAN, Reason.MISSING, "the plan of its run no longer exists")
"""Reject of a galaxy on frames whose plan no longer exists."""


@dataclass(slots=True)
class Cutouts:
    """Cutouts that were read.

    Attributes:
        pixels: RGB cutouts, uint8 `[N, 64, 64, 3]`; zeros for missing ones.
        missing: Rejects of missing cutouts, by row.
    """

    pixels: npt.NDArray[np.uint8]
    missing: dict[int, Reject] = field(default_factory=dict)


def read_cutouts(catalog: str, galaxies: pa.Table, sources: str | None = None) -> Cutouts:
    """Read the cutouts of galaxies as their runs did.

    Args:
        catalog: URI of the catalog.
        galaxies: The columns `NEEDED`, N rows without duplicates.
        sources: As for `locate_cutouts`.

    Returns:
        The cutouts, row by row. A source that is missing, changed or unreadable is not an error.

    Raises:
        FatalError: The plan of a run is damaged.
        TransientError: The catalog's store kept failing.
    """
    count = len(galaxies)
    found = Cutouts(np.zeros((count, IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8))
    found.missing = dict.fromkeys(range(count), PLAN_GONE)
    for members, rows, decoder in locate_cutouts(catalog, galaxies, sources):
        try:
            unit = read_unit(members, decoder)
        except (TransientError, FatalError) as error:
            reject = Reject.of(Stage.READ, Reason.UNREADABLE, str(error))
            found.missing |= dict.fromkeys(rows.tolist(), reject)
        else:
            _take(unit, rows, found)
    return found


def locate_cutouts(
    catalog: str, galaxies: pa.Table, sources: str | None = None
) -> Iterator[tuple[pa.Table, Rows, Decoder]]:
    """Yield the places of galaxies' cutouts, grouped by what may fail together.

    Args:
        catalog: URI of the catalog.
        galaxies: The columns `NEEDED`.
        sources: Folder or prefix that now contains the survey's files, if they were moved or their
            modification times changed since their run. Files of the same size then count as those that were
            cataloged. None: use only unchanged files in their original places.

    Yields:
        `MEMBER_SCHEMA`, the rows of its members in `galaxies`, and the decoder of their run: for each run,
        all loose images, then the members of each shared object. Galaxies on frames whose plan no longer
        exists are omitted.

    Raises:
        FatalError: The plan of a run is damaged.
        TransientError: The catalog's store kept failing.
    """
    runs = galaxies["run_id"]
    for run_id in sorted(set(runs.to_pylist())):
        rows = np.flatnonzero(pc.equal(runs, run_id).to_numpy())
        record = _record(catalog, run_id)
        decoder = _decoder(record)
        moved = None
        if sources is not None and "input_root" in record:
            now = storage.normalize_uri(sources)
            moved = MovedSources(record["input_root"], now, PRESETS[decoder.preset].bands)
        for members, places in _members(catalog, run_id, galaxies.take(rows), rows, moved):
            yield members, places, decoder


def _take(unit: pa.Table, rows: Rows, found: Cutouts) -> None:
    values = unit.select(["cutout", "stage", "reason", "detail"]).to_pylist()
    for row, value in zip(rows.tolist(), values, strict=True):
        if value["cutout"] is None:
            found.missing[row] = Reject(Stage(value["stage"]), Reason(value["reason"]), value["detail"])
        else:
            del found.missing[row]
            found.pixels[row] = np.frombuffer(value["cutout"], np.uint8).reshape(IMAGE_SIDE, IMAGE_SIDE, 3)


def _record(catalog: str, run_id: str) -> dict[str, Any]:
    """Return the record of a run, or an empty one if it no longer exists."""
    try:
        return read_run_record(catalog, run_id)
    except FileNotFoundError:
        return {}


def _decoder(record: dict[str, Any]) -> Decoder:
    """Return a decoder with the settings of a run."""
    settings = record.get("settings")
    if settings is None:
        return Decoder()
    return Decoder(
        crop=settings["crop"],
        limits=ImageLimits.of_settings(settings),
        preset=settings["preset"],
        default_radius=settings["default_radius"],
    )


def _members(
    catalog: str, run_id: str, galaxies: pa.Table, rows: Rows, moved: MovedSources | None
) -> Iterator[tuple[pa.Table, Rows]]:
    """Yield `MEMBER_SCHEMA` and its rows in the selection: all loose images, then each shared object's."""
    framed = on_frames(galaxies["source_uri"])
    loose_galaxies = galaxies.filter(pc.invert(framed))
    if moved is not None:
        loose_galaxies = _with(loose_galaxies, "source_uri", moved.relocate(loose_galaxies["source_uri"]))
    members = locate_members(loose_galaxies)
    places = rows[~framed.to_numpy()]
    if pc.any(framed).as_py():
        uris = galaxies["source_uri"].combine_chunks()
        planned = find_members(catalog, run_id, uris.filter(framed).to_pylist())
        places = np.concatenate([places, rows[pc.index_in(planned["source_uri"], uris).to_numpy()]])
        if moved is not None:
            planned = _with(planned, "object_uri", moved.relocate(planned["object_uri"]))
        members = pa.concat_tables([members, planned])
    if moved is not None:
        members = moved.accept(members)
    loose = pc.is_null(members["row"])
    if pc.any(loose).as_py():
        yield members.filter(loose), places[loose.to_numpy()]
    for uri in sorted(set(members["object_uri"].filter(pc.invert(loose)).to_pylist())):
        mine = pc.and_(pc.equal(members["object_uri"], uri), pc.invert(loose))
        yield members.filter(mine), places[mine.to_numpy()]


def _with(table: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), values)
