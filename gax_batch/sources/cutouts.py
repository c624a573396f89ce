"""Cutouts of a unit: read and decode its members, and reject those that fail."""

import numpy as np
import pyarrow as pa

from gax_batch.imaging.cutout import CUTOUT_BYTES, IMAGE_SIDE, ImageFlag
from gax_batch.imaging.decoding import Decoder
from gax_batch.rejects import Reason, Reject, RejectError, Stage
from gax_batch.sources.base import CUTOUT_SCHEMA, set_rejects
from gax_batch.sources.reading import Places, visit_members
from gax_batch.sources.tensors import Found, Pixels

# Index of the first value of the pixel in the middle of a cutout.
_MIDDLE = 3 * (IMAGE_SIDE // 2 * IMAGE_SIDE + IMAGE_SIDE // 2)


def read_unit(members: pa.Table, decoder: Decoder) -> pa.Table:
    """Read and decode a unit's cutouts, while the next ones are being fetched.

    Args:
        members: `MEMBER_SCHEMA`. Members that are already rejected stay so.
        decoder: Decodes the objects to cutouts.

    Returns:
        `CUTOUT_SCHEMA`, the same rows in the same order. A cutout that fails is a rejected row.

    Raises:
        TransientError: The storage kept failing for the unit as a whole.
        FatalError: The only shard cannot be read, or the storage refuses nearly all objects.
    """
    unit = _Unit(len(members), decoder)
    visit_members(members, unit, decoder)
    return unit.table(members)


class _Unit:
    """The cutouts of a unit, filled in any order."""

    def __init__(self, count: int, decoder: Decoder) -> None:
        self._decoder = decoder
        self._pixels = np.zeros((count, CUTOUT_BYTES), np.uint8)
        self._good = np.zeros(count, np.bool_)
        self._flags = np.zeros(count, np.int32)
        self._rejects: dict[int, Reject] = {}

    def take(self, place: int, found: Found) -> None:
        """Decode the object that was read for a member."""
        try:
            if isinstance(found, RejectError):
                raise found
            cutout, flags = self._decoder.decode(found)
        except RejectError as error:
            self._rejects[place] = error.reject
        except MemoryError:
            detail = f"more than {self._decoder.limits.memory_mib} MiB are needed to decode it"
            self._rejects[place] = Reject.of(Stage.DECODE, Reason.DECOMPRESSION_BOMB, detail)
        except Exception as error:  # noqa: BLE001  (a decoder's surprise is one galaxy's fault)
            detail = f"{type(error).__name__}: {error}"
            self._rejects[place] = Reject.of(Stage.DECODE, Reason.CORRUPT, detail)
        else:
            self._pixels[place] = cutout.reshape(-1)
            self._good[place] = True
            self.mark(place, flags)

    def take_cutouts(self, places: Places, pixels: Pixels) -> None:
        """Keep finished cutouts, uint8 `[n, 12288]`. Only those that may be blank are checked one by one."""
        colorful = (pixels[:, :3] != pixels[:, _MIDDLE : _MIDDLE + 3]).any(axis=1)
        self._pixels[places] = pixels
        self._good[places] = colorful
        for index in np.flatnonzero(~colorful).tolist():
            self.take(int(places[index]), pixels[index].reshape(IMAGE_SIDE, IMAGE_SIDE, 3))

    def mark(self, place: int, flags: ImageFlag) -> None:
        """Set a cutout's flags."""
        if flags:
            self._flags[place] |= flags

    def table(self, members: pa.Table) -> pa.Table:
        """Return the unit as `CUTOUT_SCHEMA`."""
        members = set_rejects(members, self._rejects)
        own = {
            "flags": pa.array(self._flags),
            "cutout": self._cutouts(),
        }
        columns = [own[name] if name in own else members[name] for name in CUTOUT_SCHEMA.names]
        return pa.table(columns, schema=CUTOUT_SCHEMA)

    def _cutouts(self) -> pa.Array:
        kind = CUTOUT_SCHEMA.field("cutout").type
        validity = pa.array(self._good).buffers()[1]
        return pa.Array.from_buffers(kind, len(self._good), [validity, pa.py_buffer(self._pixels)])
