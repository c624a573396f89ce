"""Loose images: one object is one cutout, and the stem of its name is the galaxy's id."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.imaging import fits
from gax_batch.imaging.limits import ListingLimits
from gax_batch.rejects import Reason, Reject, Stage
from gax_batch.sources.bands import name_problem
from gax_batch.sources.base import (
    DEFAULT_LIMITS,
    as_utf8,
    check_ids,
    is_named,
    set_rejects,
    with_columns,
)
from gax_batch.storage import UNKNOWN_SIZE, ObjectInfo

BATCH_OBJECTS = 65_536
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", *fits.SUFFIXES)
_PACKED = (".gz", ".bz2", ".fz")


class ImageSource:
    """A folder, prefix or glob of images."""

    def __init__(
        self,
        objects: Iterable[ObjectInfo],
        *,
        limit: int | None = None,
        limits: ListingLimits = DEFAULT_LIMITS,
    ) -> None:
        """Use the objects of a listing.

        Args:
            objects: Images. Other objects are skipped. Iterated once, while the members are listed.
            limit: Maximum number of images, the first by URI; None for all.
            limits: Limits of ids.
        """
        self.ignored = 0
        self._objects = objects
        self._limit = limit
        self._limits = limits

    def list_members(self) -> Iterator[pa.Table]:
        """List every image, see `Source.list_members`."""
        images = self._images()
        if self._limit is not None:
            images = iter(heapq.nsmallest(self._limit, images, key=lambda info: info.uri))
        while batch := list(islice(images, BATCH_OBJECTS)):
            yield check_ids(_members(batch), self._limits)

    def _images(self) -> Iterator[ObjectInfo]:
        for info in self._objects:
            if is_named(info.uri, SUFFIXES):
                yield info
            else:
                self.ignored += 1


def _members(objects: Sequence[ObjectInfo]) -> pa.Table:
    names = [as_utf8(info.uri) for info in objects]
    uris = pa.array(names, pa.string())
    sizes = np.array([info.size for info in objects], np.int64)
    columns = {
        "galaxy_id": pa.array([stem(name) for name in names], pa.string()),
        "source_uri": uris,
        "source_version": pa.array([info.version for info in objects], pa.string()),
        "object_uri": uris,
        "size": pc.if_else(sizes == UNKNOWN_SIZE, None, sizes),
    }
    rejects = {
        index: Reject.of(Stage.PLAN, Reason.BAD_ID, problem)
        for index, info in enumerate(objects)
        if (problem := name_problem(info.uri)) is not None
    }
    return set_rejects(with_columns(columns, len(objects)), rejects)


def stem(uri: str) -> str:
    """Return the name of an object without its folders and its suffix (`.fits.gz` is one suffix)."""
    name = uri.rsplit("/", 1)[-1]
    if name.lower().endswith(_PACKED):
        name = name.rpartition(".")[0]
    return name.rpartition(".")[0] or name
