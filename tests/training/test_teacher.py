import io
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import tensorflow as tf
from galaxy_images import galaxy_image
from labeled_galaxies import unlabeled
from scipy import signal

from gax_batch.errors import FatalError, UsageError
from gax_batch.models.layers import cumulative_probabilities
from training import teacher
from training.images import FINE_SIDE

ARRAYS = {
    # As TensorFlow keeps a kernel: the outputs are nearest to each other.
    "_conv_stem.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4).T,
    "_bn0.running_mean": np.linspace(-1, 1, 5).astype(np.float32),
    "_bn0.num_batches_tracked": np.array([7], np.int64),
    "_blocks.0._bn1.bias": np.array([0.5, -0.5], np.float32),
}


class Storage:
    def __init__(self, key, count):
        self.key, self.count = key, count


class Legacy(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, Storage):
            return ("storage", OrderedDict, value.key, "cpu", value.count, None)
        return None


def tensor(key, values):
    """A storage, where in it the tensor begins, its shape and its strides."""
    strides = tuple(step // values.itemsize for step in values.strides)
    return (Storage(key, values.size), 0, values.shape, strides)


def legacy(arrays, others=(), keys=None):
    """A file of PyTorch before version 1.6: headers, a dictionary of storages, their keys, their contents."""
    stream = io.BytesIO()
    for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(header, stream, protocol=2)
    numbers = {str(94_000 + 17 * i): name for i, name in enumerate(arrays)}
    table = OrderedDict((name, tensor(key, arrays[name])) for key, name in numbers.items())
    Legacy(stream, protocol=2).dump([table, *others])
    # The order in the file is another one than that of the dictionary.
    written = sorted(numbers, reverse=True) if keys is None else keys
    pickle.dump(written, stream, protocol=2)
    for key in written:
        values = arrays[numbers[key]] if key in numbers else np.zeros(1, np.float32)
        stream.write(values.size.to_bytes(8, "little") + values.tobytes("A"))
    return stream.getvalue()


def test_arrays_are_read_by_name():
    found = teacher.read_weights(io.BytesIO(legacy(ARRAYS)))
    assert found.keys() == ARRAYS.keys()
    for name, values in ARRAYS.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype


def test_nothing_in_the_file_is_executed(tmp_path):
    victim = tmp_path / "executed"

    class Malicious:
        def __reduce__(self):
            return os.system, (f"touch {victim}",)

    data = legacy(ARRAYS, [Malicious()])
    assert b"system" in data
    assert teacher.read_weights(io.BytesIO(data)).keys() == ARRAYS.keys()
    assert not victim.exists()


def test_a_file_that_ends_early_or_has_storages_of_no_array_is_refused():
    data = legacy(ARRAYS)
    for lost in (1, 9):
        with pytest.raises(FatalError):
            teacher.read_weights(io.BytesIO(data[:-lost]))
    with pytest.raises(FatalError, match="12345"):
        teacher.read_weights(io.BytesIO(legacy(ARRAYS, keys=["12345"])))


def test_an_array_outside_of_its_storage_is_refused():
    values = np.arange(4, dtype=np.float32)
    data = legacy({"_bn0.bias": values})
    # BININT1 with the shape and the stride: a longer shape reaches beyond the storage.
    assert data.count(b"K\x04\x85") == 1
    with pytest.raises(FatalError, match="_bn0"):
        teacher.read_weights(io.BytesIO(data.replace(b"K\x04\x85", b"K\x05\x85")))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that holds no weights."""
    (tmp_path / "weights_of_nobody" / "models").mkdir(parents=True)
    (tmp_path / "weights_of_nobody" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(teacher, "PACKAGE", "weights_of_nobody")


def test_a_package_without_weights_is_refused(package):
    with pytest.raises(FatalError, match="weights_of_nobody"):
        teacher.load_pretrained(None)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(teacher, "PACKAGE", "not_installed_anywhere")
    with pytest.raises(UsageError, match="not-installed-anywhere"):
        teacher.load_pretrained(None)


@pytest.fixture(scope="module")
def published():
    """The tensors that ImageNet gave, by name, as PyTorch has them: outputs, inputs, rows, columns."""
    package = pytest.importorskip(teacher.PACKAGE)
    (path,) = (teacher.Path(package.__path__[0]) / "models").glob("*.pth")
    with path.open("rb") as stream:
        return teacher.read_weights(stream)


@pytest.fixture(scope="module")
def pretrained(published):
    model = teacher.build()
    teacher.load_pretrained(model)
    return model


def run(model, layer, images):
    return teacher.keras.Model(model.input, model.get_layer(layer).output)(images).numpy()


def test_every_published_array_is_in_the_network(published, pretrained):
    counts = [n for n in published if not n.endswith("num_batches_tracked") and not n.startswith("_fc")]
    own = [layer for layer in pretrained.layers if layer.weights and layer.name != "logits"]
    assert sum(len(layer.weights) for layer in own) == len(counts)
    sizes = sorted(int(np.prod(w.shape)) for layer in own for w in layer.weights)
    assert sizes == sorted(published[name].size for name in counts)


def test_the_first_convolution_is_scipys_correlation(published, pretrained):
    images = np.random.default_rng(0).uniform(0, 1, (1, 8, 8, 3)).astype(np.float32)
    kernel = published["_conv_stem.weight"]
    assert kernel.shape == (32, 3, 3, 3)
    pixels = np.pad(images[0] * 2 - 1, ((0, 1), (0, 1), (0, 0)))
    expected = np.zeros((4, 4, 32))
    for output in range(32):
        for channel in range(3):
            found = signal.correlate2d(pixels[..., channel], kernel[output, channel], mode="valid")
            expected[..., output] += found[::2, ::2]
    np.testing.assert_allclose(run(pretrained, "w_conv_stem", images)[0], expected, atol=1e-4)


def test_a_depthwise_convolution_is_scipys_correlation(published, pretrained):
    name = "_blocks.0._depthwise_conv"
    layer = pretrained.get_layer("w" + name.replace(".", "-"))
    inputs = np.random.default_rng(1).normal(0, 1, (1, 6, 6, 32)).astype(np.float32)
    kernel = published[f"{name}.weight"][:, 0]
    expected = np.stack(
        [signal.correlate2d(inputs[0, ..., c], kernel[c], mode="same") for c in range(32)], axis=-1
    )
    np.testing.assert_allclose(layer(inputs)[0], expected, atol=1e-4)


def test_a_normalization_has_its_four_arrays_in_their_order(published, pretrained):
    name = "_blocks.3._bn2"
    layer = pretrained.get_layer("w" + name.replace(".", "-"))
    x = np.random.default_rng(2).normal(0, 1, (1, 2, 2, layer.gamma.shape[0])).astype(np.float32)
    weight, bias, mean, variance = (
        published[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
    )
    expected = (x - mean) / np.sqrt(variance + 1e-3) * weight + bias
    np.testing.assert_allclose(layer(x, training=False), expected, rtol=1e-3, atol=1e-3)


def test_values_before_a_normalization_are_as_on_imagenet(pretrained):
    """Normalized values scatter by about 1, as they did in training: misplaced kernels give 3 to 50."""
    images = np.stack([np.asarray(galaxy_image(i), np.float32) / 255 for i in range(4)])
    layers = [x for x in pretrained.layers if isinstance(x, teacher.keras.layers.BatchNormalization)]
    for layer, values in zip(
        layers, teacher.keras.Model(pretrained.input, [x.input for x in layers])(images), strict=True
    ):
        mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
        used = variance > 1e-2
        scores = (values.numpy() - mean) / np.sqrt(variance + 1e-3)
        assert 0.3 < scores[..., used].std() < 2, layer.name


def test_features_of_images_are_finite_and_tell_them_apart(pretrained):
    images = np.stack([np.asarray(galaxy_image(i), np.float32) / 255 for i in range(4)])
    features = run(pretrained, "pooled", images)
    assert features.shape == (4, 1280)
    assert np.isfinite(features).all()
    assert 0.05 < (features > 0.05).mean() < 0.5
    noise = np.random.default_rng(3).uniform(0, 1, (1, 106, 106, 3)).astype(np.float32)
    correlation = np.corrcoef(np.concatenate([features, run(pretrained, "pooled", noise)]))
    galaxies = correlation[:4, :4][np.triu_indices(4, 1)]
    assert galaxies.max() < 0.95
    assert correlation[4, :4].max() < galaxies.min(), "galaxies are more alike than noise is to them"


class Corner:
    """Logits that follow the pixel in the first corner of an image."""

    def __call__(self, images, training):
        assert not training
        return 3 * images[:, 0, 0, :1] * tf.linspace(-1.0, 1.0, 37)


def test_predictions_are_means_over_rotations_of_the_fine_centers(monkeypatch):
    monkeypatch.setattr(teacher, "BATCH", 2)
    fine = np.random.default_rng(4).integers(0, 256, (4, FINE_SIDE, FINE_SIDE, 3), dtype=np.uint8)
    rows = np.array([3, 0, 1])
    found = teacher.predict(Corner(), unlabeled(4, fine=fine), rows)
    margin = (FINE_SIDE - teacher.SIDE) // 2
    last = FINE_SIDE - margin - 1
    expected = np.zeros((3, 37))
    # A turn by 90 degrees counterclockwise brings the upper right corner to the upper left.
    for x in (margin, last):
        pixels = fine[rows, margin, x, :1] / np.float32(255)
        logits = 3 * pixels * np.linspace(-1, 1, 37, dtype=np.float32)
        expected += cumulative_probabilities(tf.constant(logits, tf.float32)).numpy() / 2
    np.testing.assert_allclose(found, expected, atol=1e-5)
