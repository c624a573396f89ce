"""WebDataset tar shards: `id.jpg` (or any image that is read) and, beside it, `id.json` with `ra` and `dec`.

A listing walks from header to header; a member is known by where its bytes are in the tar, and is read by
that alone. Names in a tar are text for ids, never paths. Packed tars cannot be read at random, and are not.
"""

import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gax_batch import storage
from gax_batch.errors import FatalError, UsageError
from gax_batch.rejects import Reason, Reject, RejectError, Stage
from gax_batch.sources.base import is_named, set_rejects, with_columns
from gax_batch.sources.images import SUFFIXES as IMAGE_SUFFIXES
from gax_batch.storage import ObjectInfo

SUFFIXES = (".tar",)

_BATCH_MEMBERS = 65_536
_MAX_JSON_BYTES = 64 * 1024

Handler = Callable[[int, "bytes | RejectError"], None]


@dataclass(frozen=True, slots=True)
class _Member:
    key: str
    offset: int
    size: int
    ra: float | None
    dec: float | None


def list_tar(info: ObjectInfo) -> Iterator[pa.Table]:
    """List the images in a tar, a batch at a time.

    Yields:
        `MEMBER_SCHEMA`; `row` is where an image's bytes begin. A tar that was cut ends with its last whole
        member and a reject for the one that was cut.

    Raises:
        UsageError: It is no tar.
        TransientError: The store kept failing.
    """
    with storage.open_binary(info.uri) as file:
        members = _members(info.uri, file)
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
        info: The tar, of the version that was listed.
        offsets: Where the images begin, increasing.
        sizes: Of the images, bytes.
        handle: Called with an index into `offsets`, and the bytes or why there are none.
        max_bytes: Larger images are rejected.

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


def _members(uri: str, file: BinaryIO) -> Iterator[_Member]:
    """Images with what their neighbor of the same key says of them."""
    image: tuple[str, int, int] | None = None
    facts: dict[str, dict[str, Any]] = {}
    for entry in _entries(uri, file):
        key, suffix = _split(entry.name)
        if suffix == ".json":
            facts[key] = _json(file, entry)
        elif is_named(f"/x{suffix}", IMAGE_SUFFIXES):
            if image is not None:
                yield _joined(image, facts.get(image[0], {}))
                facts = {key: facts[key]} if key in facts else {}
            image = (key, entry.offset_data, entry.size)
    if image is not None:
        yield _joined(image, facts.get(image[0], {}))


def _joined(image: tuple[str, int, int], facts: dict[str, Any]) -> _Member:
    return _Member(*image, _number(facts.get("ra")), _number(facts.get("dec")))


def _entries(uri: str, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    try:
        with tarfile.open(fileobj=file, mode="r:", errors="backslashreplace") as opened:
            tar: Any = opened
            while (entry := tar.next()) is not None:
                if entry.isreg() and not entry.issparse():
                    yield entry
                tar.members.clear()  # else a large tar's headers pile up
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        if isinstance(error, tarfile.ReadError) and "unexpected end of data" in str(error):
            return  # cut in the middle: what came before is whole
        raise UsageError(f"{uri} is no readable tar ({error}); repair or remove it") from None


def _split(name: str) -> tuple[str, str]:
    """WebDataset's key, without folders, and the suffix: all from the first dot of the base name on."""
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
