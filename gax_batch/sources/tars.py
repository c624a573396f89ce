"""WebDataset tar shards: `id.jpg` (or another image format) and, beside it, `id.json` with `ra` and `dec`.

A listing goes from header to header. It records the position of each member's bytes in the tar, and members
are read by that position. Names in a tar are text for ids, never paths. Compressed tars are not supported,
since they cannot be read at random positions.
"""

import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gax_batch import storage
from gax_batch.errors import FatalError, UsageError
from gax_batch.imaging.limits import ImageLimits, ListingLimits
from gax_batch.rejects import Reason, Reject, RejectError, Stage
from gax_batch.sources.base import DEFAULT_LIMITS, is_named, set_rejects, with_columns
from gax_batch.sources.images import SUFFIXES as IMAGE_SUFFIXES
from gax_batch.storage import ObjectInfo

SUFFIXES = (".tar",)

_BATCH_MEMBERS = 65_536
_MAX_JSON_BYTES = 64 * 1024
# Long names and extended attributes, which precede their entry.
_MAX_HEADER_BYTES = ImageLimits().header_bytes
# Errors of tarfile for damaged headers.
_DAMAGE = (tarfile.TarError, EOFError, ValueError, LookupError, OverflowError, RecursionError)

Handler = Callable[[int, "bytes | RejectError"], None]
Position = tuple[float | None, float | None]

_NOWHERE: Position = (None, None)


@dataclass(frozen=True, slots=True)
class _Member:
    key: str
    offset: int
    size: int
    ra: float | None
    dec: float | None


def list_tar(info: ObjectInfo, limits: ListingLimits = DEFAULT_LIMITS) -> Iterator[pa.Table]:
    """List the images in a tar, in batches.

    Args:
        info: The tar.
        limits: Maximum number of entries.

    Yields:
        Tables of `MEMBER_SCHEMA`. `row` is the offset of an image's bytes. The listing of a truncated tar
        ends with its last complete member and a reject for the truncated one.

    Raises:
        UsageError: It is not a tar, or has too many entries.
        TransientError: The store kept failing.
    """
    with storage.open_binary(info.uri) as file:
        members = _members(info.uri, file, limits.shard_members)
        while batch := list(islice(members, _BATCH_MEMBERS)):
            yield _table(info, batch)


def read_tar(
    info: ObjectInfo,
    offsets: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    handle: Handler,
    *,
    max_bytes: int,
) -> None:
    """Read some images from a tar.

    Args:
        info: The tar, with the version that was listed.
        offsets: Offsets of the images in bytes, int64 `[n]`, increasing.
        sizes: Sizes of the images in bytes, int64 `[n]`.
        handle: Called with an index into `offsets`, and the bytes or the reject.
        max_bytes: Maximum size of an image in bytes. Larger ones are rejected.

    Raises:
        TransientError: The store kept failing.
        FatalError: The tar cannot be read.
    """
    try:
        with storage.open_binary(info.uri) as file:
            for index, (offset, size) in enumerate(zip(offsets.tolist(), sizes.tolist(), strict=True)):
                handle(index, _image(file, offset, size, max_bytes))
    except OSError as error:
        raise FatalError(f"the tar {info.uri} cannot be read: {error}") from error


def _image(file: BinaryIO, offset: int, size: int, max_bytes: int) -> "bytes | RejectError":
    if size > max_bytes:
        return RejectError(Stage.READ, Reason.TOO_MANY_BYTES, f"{size} bytes, the limit is {max_bytes}")
    file.seek(offset)
    data = file.read(size)
    if not data:
        return RejectError(Stage.READ, Reason.EMPTY_FILE, "no bytes")
    if len(data) < size:
        return RejectError(Stage.READ, Reason.TRUNCATED, f"{len(data)} of {size} bytes are in the tar")
    return data


def _members(uri: str, file: BinaryIO, most: int) -> Iterator[_Member]:
    """Yield images with the position from their neighbor of the same key."""
    image: tuple[str, int, int] | None = None
    places: dict[str, Position] = {}
    for entry in _entries(uri, file, most):
        key, suffix = _split(entry.name)
        if suffix == ".json":
            # Keep only the position of the image before or after it, however many entries share the key.
            mine = {k: place for k, place in places.items() if image is not None and k == image[0]}
            places = mine | {key: _position(_json(file, entry))}
        elif is_named(f"/x{suffix}", IMAGE_SUFFIXES):
            if image is not None:
                yield _Member(*image, *places.get(image[0], _NOWHERE))
                places = {key: places[key]} if key in places else {}
            image = (key, entry.offset_data, entry.size)
    if image is not None:
        yield _Member(*image, *places.get(image[0], _NOWHERE))


def _entries(uri: str, file: BinaryIO, most: int) -> Iterator[tarfile.TarInfo]:
    entries, last = 0, -1
    try:
        with tarfile.open(
            fileobj=cast(BinaryIO, _Headers(file)), mode="r:", errors="backslashreplace"
        ) as opened:
            tar: Any = opened
            while (entry := tar.next()) is not None:
                if entry.offset <= last:  # negative size: the listing would never end
                    raise tarfile.HeaderError("a header leads backwards")
                entries, last = entries + 1, entry.offset
                if entries > most:
                    raise UsageError(
                        f"{uri} has more than {most} entries; split it, or raise --max-shard-members"
                    )
                if entry.isreg() and not entry.issparse():
                    yield entry
                tar.members.clear()  # otherwise the headers of a large tar accumulate
                tar.pax_headers.clear()
    except _DAMAGE as error:
        cut = isinstance(error, tarfile.ReadError) and "unexpected end of data" in str(error)
        if cut or isinstance(error, IndexError):  # tarfile raises IndexError for a truncated map of holes
            return  # the entries before are complete
        raise UsageError(f"{uri} is not a readable tar ({error}); repair or remove it") from None


class _Headers:
    """A tar for `tarfile` that limits reads, since tarfile would read a header of any claimed size."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.HeaderError(f"a header of {size} bytes, the limit is {_MAX_HEADER_BYTES}")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        if not 0 <= offset < 1 << 63:
            raise tarfile.HeaderError("a header leads out of the file")
        return self._file.seek(offset, whence)


def _split(name: str) -> tuple[str, str]:
    """Return WebDataset's key without folders, and the suffix: all from the first dot of the base name on."""
    base = name.rsplit("/", 1)[-1]
    key, dot, suffix = base.partition(".")
    return key, f"{dot}{suffix}".lower()


def _json(file: BinaryIO, entry: tarfile.TarInfo) -> dict[str, Any]:
    if entry.size > _MAX_JSON_BYTES:
        return {}
    here = file.tell()
    file.seek(entry.offset_data)
    try:
        values = json.loads(file.read(entry.size))
    except (ValueError, RecursionError):
        return {}
    finally:
        file.seek(here)
    return values if isinstance(values, dict) else {}


def _position(facts: dict[str, Any]) -> Position:
    return _number(facts.get("ra")), _number(facts.get("dec"))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _table(info: ObjectInfo, members: Sequence[_Member]) -> pa.Table:
    count = len(members)
    columns = {
        "galaxy_id": pa.array([member.key for member in members], pa.string()),
        "ra": pa.array([member.ra for member in members], pa.float64()),
        "dec": pa.array([member.dec for member in members], pa.float64()),
        "source_uri": pa.array([f"{info.uri}#offset={m.offset:012}" for m in members], pa.string()),
        "source_version": pa.array([info.version] * count, pa.string()),
        "object_uri": pa.array([info.uri] * count, pa.string()),
        "row": pa.array([member.offset for member in members], pa.int64()),
        "size": pa.array([member.size for member in members], pa.int64()),
    }
    cut = [i for i, m in enumerate(members) if 0 <= info.size < m.offset + m.size]
    reject = Reject.of(Stage.PLAN, Reason.TRUNCATED, f"the tar ends after {info.size} bytes")
    return set_rejects(with_columns(columns, count), dict.fromkeys(cut, reject))
