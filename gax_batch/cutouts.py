"""The cutouts of cataloged galaxies, read again from where they came: a catalog keeps no pixels."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.catalog.snapshots import read_run_record
from gax_batch.decoding import Decoder
from gax_batch.errors import FatalError, TransientError
from gax_batch.imaging import IMAGE_SIDE, ImageLimits
from gax_batch.rejects import Reason, Reject, Stage
from gax_batch.sources import read_unit
from gax_batch.sources.recall import on_frames, recall_members

NEEDED = ("galaxy_id", "ra", "dec", "source_uri", "source_version", "run_id")
"""The catalog's columns by which a cutout is found."""


@dataclass(slots=True)
class Cutouts:
    """What was read.

    Attributes:
        pixels: `uint8 [N, 64, 64, 3]`, RGB; zeros where there is none.
        missing: Why there is none, by row.
    """

    pixels: npt.NDArray[np.uint8]
    missing: dict[int, Reject] = field(default_factory=dict)


def read_cutouts(catalog: str, galaxies: pa.Table) -> Cutouts:
    """Read the cutouts of galaxies as their runs did.

    Args:
        catalog: The catalog's URI, where its runs' settings are.
        galaxies: The columns `NEEDED`, N rows.

    Returns:
        The cutouts, row by row; a source that is gone, changed or unreadable is not an error.
    """
    count = len(galaxies)
    found = Cutouts(np.zeros((count, IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8))
    framed = on_frames(galaxies["source_uri"]).to_numpy().astype(bool)
    for row in np.flatnonzero(framed).tolist():
        detail = "a galaxy on frames: the catalog does not say on which ones"
        found.missing[row] = Reject.of(Stage.PLAN, Reason.UNREADABLE, detail)
    runs = np.array(galaxies["run_id"].to_pylist(), object)
    for run_id in sorted(set(runs)):
        rows = np.flatnonzero((runs == run_id) & ~framed)
        members = recall_members(galaxies.take(rows))
        decoder = run_decoder(catalog, run_id)
        for places in _by_object(members):
            _read(members.take(places), rows[places], decoder, found)
    return found


def run_decoder(catalog: str, run_id: str) -> Decoder:
    """The decoder that a run had; the usual one where its record is gone."""
    try:
        settings = read_run_record(catalog, run_id)["settings"]
        limits = ImageLimits(bytes=settings["max_image_bytes"], pixels=settings["max_image_pixels"])
    except (OSError, ValueError, KeyError):
        return Decoder()
    return Decoder(settings["crop"], limits, settings["preset"], settings["default_radius"])


def _by_object(members: pa.Table) -> list[npt.NDArray[np.int64]]:
    """All loose images together, each shard by itself: an unreadable one must not take others with it."""
    objects = pc.if_else(pc.is_valid(members["row"]), members["object_uri"], "")
    names = np.array(objects.to_pylist(), object)
    return [np.flatnonzero(names == name) for name in sorted(set(names))]


def _read(members: pa.Table, rows: npt.NDArray[np.int64], decoder: Decoder, found: Cutouts) -> None:
    try:
        unit = read_unit(members, decoder)
    except (TransientError, FatalError) as error:
        reject = Reject.of(Stage.READ, Reason.UNREADABLE, str(error))
        found.missing |= dict.fromkeys(rows.tolist(), reject)
        return
    for row, values in zip(
        rows.tolist(), unit.select(["cutout", "stage", "reason", "detail"]).to_pylist(), strict=True
    ):
        if values["cutout"] is None:
            found.missing[row] = Reject(Stage(values["stage"]), Reason(values["reason"]), values["detail"])
        else:
            found.pixels[row] = np.frombuffer(values["cutout"], np.uint8).reshape(IMAGE_SIDE, IMAGE_SIDE, 3)
