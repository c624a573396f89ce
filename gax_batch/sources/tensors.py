"""One cell of a Parquet image column: encoded bytes, or a raw tensor as a common library writes it.

Every form that is read has a writer in `tests/sources/test_shard_writers.py`.
"""

import json
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.errors import UsageError
from gax_batch.imaging.cutout import CUTOUT_BYTES, IMAGE_SIDE, is_encoded
from gax_batch.rejects import Reason, RejectError, Stage
from gax_batch.sources.base import ENCODED

IMAGE_COLUMNS = ("image", "cutout", "bytes")

Stored = bytes | tuple[bytes, ...] | npt.NDArray[Any]
"""One cutout as it is stored: encoded bytes, those of each band, or a raw tensor."""

Found = Stored | RejectError
"""What reading one cutout gives: what is stored, or why there is nothing."""

Pixels = npt.NDArray[np.uint8]


class Receiver(Protocol):
    """Takes what is read of a unit's members, each by its index."""

    def take(self, index: int, found: Found) -> None:
        """Take one member's image, or why there is none."""

    def take_cutouts(self, first: int, pixels: Pixels) -> None:
        """Take finished cutouts `[n, 12288]` of the members from `first` on."""


_CUTOUT_SHAPE = (IMAGE_SIDE, IMAGE_SIDE, 3)


def image_column(schema: pa.Schema, uri: str) -> str:
    """Which column of a shard holds the images.

    Raises:
        UsageError: None does, or it is of a type that cannot be an image.
    """
    name = next((name for name in IMAGE_COLUMNS if name in schema.names), None)
    if name is None:
        wanted = ", ".join(IMAGE_COLUMNS)
        raise UsageError(
            f"{uri} has no image column ({wanted}); it has {', '.join(schema.names)}: rename one of them"
        )
    kind = _storage_type(schema.field(name).type)
    if not (_is_binary(kind) or _is_list(kind) or _is_struct(kind)):
        raise UsageError(f"{uri}: column {name} is {kind}; give encoded images or uint8 tensors")
    return name


def finished_cutouts(column: pa.Array) -> Pixels | None:
    """All cells of a column at once, `[n, 12288]`, if every one is a raw cutout of 64x64 pixels."""
    if column.type != pa.binary(CUTOUT_BYTES) or column.null_count:
        return None
    start = column.offset * CUTOUT_BYTES
    data = np.frombuffer(column.buffers()[1], np.uint8)[start : start + len(column) * CUTOUT_BYTES]
    pixels = data.reshape(-1, CUTOUT_BYTES)
    # The first bytes identify an encoded image that happens to have this size.
    return None if any(is_encoded(head.tobytes()) for head in pixels[:, :8]) else pixels


class CellReader:
    """Reads cells of one image column."""

    def __init__(self, field: pa.Field, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._shape = _declared_shape(field)
        self._encoded = ENCODED.items() <= (field.metadata or {}).items()

    def read(self, column: pa.Array, index: int) -> Found:
        """One row's encoded bytes or `[h, w, 3]` or `[h, w]` tensor, or why there is none."""
        try:
            self._check_size(column, index)
            return self._read(column[index])
        except RejectError as error:
            return error

    def _check_size(self, column: pa.Array, index: int) -> None:
        """Look at an encoded image's size before anything is made of it."""
        column = column.storage if isinstance(column, pa.ExtensionArray) else column
        if pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
            column = column.field("bytes")
        if not _is_binary(column.type):
            return
        size = pc.binary_length(column.slice(index, 1))[0].as_py() or 0
        if size > self._max_bytes:
            detail = f"{size} bytes, the limit is {self._max_bytes}"
            raise RejectError(Stage.READ, Reason.TOO_MANY_BYTES, detail)

    def _read(self, cell: Any) -> bytes | npt.NDArray[Any]:
        if isinstance(cell, pa.ExtensionScalar):
            cell = cell.value
        if cell is not None and cell.is_valid and isinstance(cell, pa.StructScalar):
            if "data" in cell and "shape" in cell:
                return _reshaped(_flat(cell["data"])[0], tuple(cell["shape"].as_py() or ()))
            cell = cell["bytes"]
        if cell is None or not cell.is_valid:
            raise RejectError(Stage.READ, Reason.EMPTY_FILE, "the row has no image")
        if _is_binary(cell.type):
            data: bytes = cell.as_py()
            return data if self._encoded else _bytes_or_cutout(data)
        values, shape = _flat(cell)
        if len(shape) == 1:
            shape = self._shape or (_CUTOUT_SHAPE if shape[0] == CUTOUT_BYTES else shape)
        return _reshaped(values, shape)


def _bytes_or_cutout(data: bytes) -> bytes | npt.NDArray[Any]:
    if len(data) == CUTOUT_BYTES and not is_encoded(data):
        return np.frombuffer(data, np.uint8).reshape(_CUTOUT_SHAPE)
    return data


def _flat(cell: Any) -> tuple[npt.NDArray[Any], tuple[int, ...]]:
    """The numbers of a (nested) list, and its shape."""
    values = cell.values
    shape = [0 if values is None else len(values)]
    while values is not None and _is_list(values.type):
        inner = values.flatten()
        lengths = set(values.value_lengths().to_pylist())
        if len(lengths) > 1:
            raise RejectError(
                Stage.DECODE, Reason.WRONG_SHAPE, f"nested lists of lengths {sorted(map(str, lengths))}"
            )
        shape.append(next(iter(lengths), 0) or 0)
        values = inner
    if values is None:
        return np.zeros(0, np.uint8), (0,)
    if values.null_count or not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise RejectError(
            Stage.DECODE, Reason.WRONG_SHAPE, f"{values.null_count} nulls, {values.type} values"
        )
    return values.to_numpy(zero_copy_only=False), tuple(shape)


def _reshaped(values: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if int(np.prod(shape)) != values.size:
        raise RejectError(Stage.DECODE, Reason.WRONG_SHAPE, f"{values.size} values of shape {list(shape)}")
    return values.reshape(shape)


def _declared_shape(field: pa.Field) -> tuple[int, ...] | None:
    """Return the shape of a tensor type: Arrow's own, or Ray's, which only Ray registers with pyarrow."""
    shape = getattr(field.type, "shape", None)
    if shape is None and field.metadata and b"ARROW:extension:metadata" in field.metadata:
        try:
            shape = json.loads(field.metadata[b"ARROW:extension:metadata"])
        except ValueError:
            return None
    if not isinstance(shape, list | tuple) or not all(isinstance(n, int) for n in shape):
        return None
    return tuple(shape)


def _storage_type(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _is_binary(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_struct(kind: pa.DataType) -> bool:
    names = {kind.field(i).name for i in range(kind.num_fields)} if pa.types.is_struct(kind) else set()
    return "bytes" in names or {"data", "shape"} <= names
