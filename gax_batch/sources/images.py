"""Loose images: one object is one cutout, and its file stem is the galaxy's id."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.rejects import Reason, Reject, Stage
from gax_batch.sources.base import as_utf8, check_members, set_rejects, with_columns
from gax_batch.sources.positions import Positions
from gax_batch.storage import UNKNOWN_SIZE, ObjectInfo

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


class ImageSource:
    """A folder, prefix or glob of images."""

    def __init__(
        self,
        objects: Sequence[ObjectInfo],
        *,
        ignored: int = 0,
        positions: Positions | None = None,
        limit: int | None = None,
    ) -> None:
        """Take listed images, sorted by URI.

        Args:
            objects: The images.
            ignored: How many other objects were passed over.
            positions: Where the galaxies are, if known.
            limit: Take the first so many only.
        """
        self.ignored = ignored
        self._objects = objects[:limit]
        self._positions = positions

    def list_members(self) -> pa.Table:
        """List every image; see `Source.list_members`."""
        names = [as_utf8(info.uri) for info in self._objects]
        uris = pa.array(names, pa.string())
        ids = pa.array([stem(name) for name in names], pa.string())
        sizes = np.array([info.size for info in self._objects], np.int64)
        count = len(self._objects)
        columns = {
            "galaxy_id": ids,
            "ra": pa.nulls(count, pa.float64()),
            "dec": pa.nulls(count, pa.float64()),
            "source_uri": uris,
            "source_version": pa.array([info.version for info in self._objects], pa.string()),
            "object_uri": uris,
            "row": pa.nulls(count, pa.int64()),
            "size": pc.if_else(sizes == UNKNOWN_SIZE, None, sizes),
        }
        members = with_columns(columns, count)
        escaped = [i for i, info in enumerate(self._objects) if info.uri != names[i]]
        if escaped:
            reject = Reject.of(Stage.PLAN, Reason.BAD_ID, "the name of the file is not UTF-8; rename it")
            members = set_rejects(members, dict.fromkeys(escaped, reject))
        return check_members(members if self._positions is None else self._positions.join(members))


def stem(uri: str) -> str:
    """The name of an object without its folders and its last suffix."""
    name = uri.rsplit("/", 1)[-1]
    return name.rpartition(".")[0] or name
