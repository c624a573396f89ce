"""The stored files of a unit's members, undecoded."""

import pyarrow as pa

from gax_batch.errors import UsageError
from gax_batch.imaging.cutout import ImageFlag
from gax_batch.imaging.decoding import Decoder
from gax_batch.rejects import Reject, RejectError
from gax_batch.sources.base import ORIGINAL_SCHEMA, set_rejects
from gax_batch.sources.reading import Places, visit_members
from gax_batch.sources.tensors import Found, Pixels


def read_originals(members: pa.Table, decoder: Decoder) -> pa.Table:
    """Read a unit's images without decoding them.

    Args:
        members: `MEMBER_SCHEMA` of loose images and rows of shards, as for `read_unit`.
        decoder: Has the limits.

    Returns:
        `ORIGINAL_SCHEMA`, the same rows in the same order. A member that cannot be read is a rejected row.

    Raises:
        UsageError: A member does not have a single image file.
        TransientError, FatalError: As for `read_unit`.
    """
    unit = _Originals(len(members))
    visit_members(members, unit, decoder)
    return unit.table(members)


class _Originals:
    """The encoded images of a unit."""

    def __init__(self, count: int) -> None:
        self._images: list[bytes | None] = [None] * count
        self._raw = False
        self._rejects: dict[int, Reject] = {}

    def take(self, place: int, found: Found) -> None:
        if isinstance(found, RejectError):
            self._rejects[place] = found.reject
        elif isinstance(found, bytes):
            self._images[place] = found
        else:
            self._raw = True

    def take_cutouts(self, places: Places, pixels: Pixels) -> None:
        self._raw = True

    def mark(self, place: int, flags: ImageFlag) -> None:
        self._raw = True

    def table(self, members: pa.Table) -> pa.Table:
        if self._raw:
            raise UsageError(
                "raw tensors, galaxies on frames and files of single bands do not have one image file that "
                "could be kept; pack them as cutouts, without --originals"
            )
        members = set_rejects(members, self._rejects)
        images = pa.array(self._images, pa.large_binary())
        columns = [images if name == "image" else members[name] for name in ORIGINAL_SCHEMA.names]
        return pa.table(columns, schema=ORIGINAL_SCHEMA)
