"""Surveys on any storage: loose images, Parquet or tar shards, files of one band each, or frames."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

from gax_batch import storage
from gax_batch.errors import UsageError
from gax_batch.imaging.limits import ListingLimits
from gax_batch.sources.bandfiles import BandFileSource
from gax_batch.sources.base import (
    CUTOUT_SCHEMA,
    DEFAULT_LIMITS,
    MEMBER_SCHEMA,
    ORIGINAL_SCHEMA,
    Source,
    is_named,
    set_rejects,
)
from gax_batch.sources.cutouts import read_unit
from gax_batch.sources.frame_index import FrameIndex
from gax_batch.sources.frames import FrameSource
from gax_batch.sources.images import SUFFIXES as IMAGE_SUFFIXES
from gax_batch.sources.images import ImageSource
from gax_batch.sources.locate import MovedSources, locate_members, on_frames, shards_of
from gax_batch.sources.originals import read_originals
from gax_batch.sources.positions import read_positions
from gax_batch.sources.reading import Visitor, visit_members
from gax_batch.sources.shards import SUFFIXES as SHARD_SUFFIXES
from gax_batch.sources.shards import Settled, ShardSource
from gax_batch.sources.tensors import Found, Pixels, Stored
from gax_batch.storage import ObjectInfo
from gax_batch.storage.listing import iter_objects, split_glob

__all__ = [
    "CUTOUT_SCHEMA",
    "MEMBER_SCHEMA",
    "ORIGINAL_SCHEMA",
    "Found",
    "MovedSources",
    "Pixels",
    "Settled",
    "Source",
    "Stored",
    "Visitor",
    "locate_members",
    "on_frames",
    "open_band_files",
    "open_frames",
    "open_source",
    "read_originals",
    "read_positions",
    "read_unit",
    "set_rejects",
    "shards_of",
    "visit_members",
]


def open_source(
    uri: str,
    *,
    limit: int | None = None,
    exclude: str | None = None,
    settled: Settled | None = None,
    limits: ListingLimits = DEFAULT_LIMITS,
) -> Source:
    """Open a survey: a folder, prefix, glob or single object of images or of shards.

    Reads the listing up to the first cutout, which decides the kind of the survey.

    Args:
        uri: Path or URI of the survey.
        limit: Maximum number of cutouts, the first in the order of their URIs; None for all.
        exclude: URI below which nothing belongs to the survey: the catalog may be in the input folder.
        settled: Omits the shards whose rows need not be listed. Not called if there is a limit.
        limits: Limits of ids and shards.

    Raises:
        UsageError: Nothing is found, neither images nor shards are found, or the input is in `exclude`. If
            both kinds are found, listing the members raises it.
        TransientError: The store kept failing.
    """
    _check(uri, limit, exclude)
    objects = _objects(uri, exclude)
    passed: list[ObjectInfo] = []
    for info in objects:
        passed.append(info)
        if is_named(info.uri, IMAGE_SUFFIXES):
            images = _one_kind(uri, chain(passed, objects), SHARD_SUFFIXES)
            return ImageSource(images, limit=limit, limits=limits)
        if is_named(info.uri, SHARD_SUFFIXES):
            shards = _one_kind(uri, chain(passed, objects), IMAGE_SUFFIXES)
            return ShardSource(shards, limit=limit, settled=settled, limits=limits)
    wanted = ", ".join(IMAGE_SUFFIXES + SHARD_SUFFIXES)
    raise UsageError(f"{uri} has {len(passed)} objects, but none is an image or a shard ({wanted})")


def open_band_files(
    uri: str,
    *,
    bands: Sequence[str],
    limit: int | None = None,
    exclude: str | None = None,
    limits: ListingLimits = DEFAULT_LIMITS,
) -> Source:
    """Open a survey of FITS cutouts with one file per band.

    Args:
        uri: Path or URI of the files. Those whose names differ only in the band are one galaxy.
        bands: Required bands, from red to blue.
        limit: Maximum number of galaxies, the first in the order of their URIs; None for all.
        exclude: As for `open_source`.
        limits: Limits of ids.

    Raises:
        UsageError: Nothing is found.
        TransientError: The store kept failing.
    """
    _check(uri, limit, exclude)
    return BandFileSource(_objects(uri, exclude), bands=bands, limit=limit, limits=limits)


def open_frames(
    uri: str,
    positions: str,
    *,
    bands: Sequence[str],
    limit: int | None = None,
    exclude: str | None = None,
    limits: ListingLimits = DEFAULT_LIMITS,
    index_folder: str | None = None,
    keep_index: bool = False,
) -> Source:
    """Open a survey of frames and of positions on them.

    Args:
        uri: Path or URI of the frames: FITS files, one per band, whose names differ only in the band.
        positions: Path or URI of the table of galaxies (see `read_positions`).
        bands: Required bands, from red to blue.
        limit: Maximum number of galaxies, the first of the table; None for all.
        exclude: As for `open_source`.
        limits: Limits of ids.
        index_folder: Folder of the index of frames; None to open every header.
        keep_index: Whether to write the index when it changes.

    Raises:
        UsageError: Nothing is found.
        TransientError: The store kept failing.
    """
    _check(uri, limit, exclude)
    root, pattern = split_glob(storage.normalize_uri(uri))
    folder = None if index_folder is None else storage.normalize_uri(index_folder)
    return FrameSource(
        _objects(uri, exclude),
        read_positions(positions, all_ids=False),
        table=storage.normalize_uri(positions),
        index=FrameIndex(folder, root, pattern is None, tuple(bands), keep_index),
        limit=limit,
        limits=limits,
    )


def _objects(uri: str, exclude: str | None) -> Iterator[ObjectInfo]:
    return iter_objects(uri, exclude=None if exclude is None else storage.normalize_uri(exclude))


def _check(uri: str, limit: int | None, exclude: str | None) -> None:
    if limit is not None and limit < 1:
        raise UsageError(f"the limit must be 1 or more, not {limit}")
    if exclude is not None and storage.is_within(storage.normalize_uri(uri), storage.normalize_uri(exclude)):
        raise UsageError(f"the input {uri} is in the catalog {exclude}; give the catalog a folder of its own")


def _one_kind(uri: str, objects: Iterable[ObjectInfo], other: tuple[str, ...]) -> Iterator[ObjectInfo]:
    for info in objects:
        if is_named(info.uri, other):
            raise UsageError(
                f"{uri} contains both images and Parquet shards ({info.uri} is not of the first kind); name "
                "one kind, for example by a glob such as '**/*.parquet'"
            )
        yield info
