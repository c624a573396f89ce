import math

import numpy as np
import pytest
import tensorflow as tf

from gax_batch import gz2
from gax_batch.models import bayesian, classic, layers, svr


def trainable(model):
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


@pytest.fixture(scope="module")
def networks():
    return {module.__name__.rpartition(".")[2]: module.build(seed=3) for module in (classic, bayesian, svr)}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((4, 64, 64, 3), np.float32)


def unsettle(network, seed=1):
    """Give biases and batch normalizations values that matter."""
    rng = np.random.default_rng(seed)
    for layer in network.layers:
        if "normalization" in layer.name:
            layer.set_weights(
                [rng.uniform(0.2, 1.5, w.shape).astype(np.float32) for w in layer.get_weights()]
            )
        elif "convolution" in layer.name:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel, rng.normal(0, 0.1, bias.shape).astype(np.float32)])


@pytest.mark.parametrize(
    ("name", "total", "trained"),
    [("classic", 447_909, 447_013), ("bayesian", 893_285, 892_389), ("svr", 382_117, 381_221)],
)
def test_parameter_counts_are_the_published_ones(networks, name, total, trained):
    assert networks[name].count_params() == total
    assert trainable(networks[name]) == trained


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("classic", (62, 31, 29, 14, 12, 6)),
        ("bayesian", (64, 32, 32, 16, 16, 8)),
        ("svr", (64, 32, 32, 16, 16, 8)),
    ],
)
def test_layers_have_the_published_sizes(networks, name, sides):
    outputs = [layer.output for layer in networks[name].layers if len(layer.output.shape) == 4]
    measured = [o.shape[1] for o in outputs if "normalization" in o.name or "pooling" in o.name]
    assert measured == list(sides)


@pytest.mark.parametrize("module", [classic, bayesian, svr])
def test_no_two_layers_start_alike_and_the_seed_decides(module):
    first, again = module.build(seed=5), module.build(seed=5)
    starts = [w.numpy().ravel() for w in first.trainable_weights if len(w.shape) > 1]
    repeated = [w.numpy().ravel() for w in again.trainable_weights if len(w.shape) > 1]
    for a, b in zip(starts, repeated, strict=True):
        np.testing.assert_array_equal(a, b)
    heads = [round(float(s[0] / s.std()), 6) for s in starts if np.ptp(s) > 0]
    assert len(set(heads)) == len(heads)


def test_the_classic_predictor_is_the_network_averaged_over_rotations(networks, images):
    network = networks["classic"]
    unsettle(network)
    predicted = classic.Predictor(classic.export_weights(network), tf.float32)(tf.constant(images))
    views = [np.rot90(images, k, axes=(1, 2)) for k in range(4)]
    logits = [network(np.ascontiguousarray(view), training=False) for view in views]
    expected = np.mean([layers.cumulative_probabilities(x).numpy() for x in logits], axis=0)
    np.testing.assert_allclose(predicted, expected, atol=1e-5)


def test_the_svr_predictor_has_the_networks_features(networks, images):
    network = networks["svr"]
    unsettle(network)
    symmetric = np.mean([np.rot90(images, k, axes=(1, 2)) for k in range(4)], axis=0)
    symmetric = np.ascontiguousarray(symmetric)
    features = network.get_layer("features").output
    expected = type(network)(network.input, features)(symmetric, training=False)
    predicted = svr.Features(svr.export_weights(network), tf.float32)(tf.constant(symmetric))
    # Pooling over the rotations of an image that does not change with them is pooling over the image.
    one = layers.trunk(
        tf.constant(symmetric),
        [svr.export_weights(network)[f"block_{i}/kernel"] for i in range(3)],
        svr.export_weights(network),
        "SAME",
    )
    np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(predicted, expected, rtol=1e-4, atol=1e-5)


def test_the_head_agrees_with_the_tree():
    logits = np.random.default_rng(1).normal(0, 4, (50, gz2.N_ANSWERS)).astype(np.float32)
    conditional = layers.conditional_probabilities(tf.constant(logits)).numpy()
    cumulative = layers.cumulative_probabilities(tf.constant(logits)).numpy()
    np.testing.assert_allclose(cumulative, gz2.cumulative(conditional), atol=1e-6)
    assert gz2.inconsistency(cumulative) < 1e-6


def test_the_rotations_are_those_of_the_square():
    image = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    views = layers.rotations(tf.constant(image)).numpy()
    for k in range(4):
        np.testing.assert_array_equal(views[k], np.rot90(image, k, axes=(1, 2)))


@pytest.mark.parametrize("orientation", range(8))
def test_a_kernel_turned_back_finds_what_the_kernel_finds_in_the_turned_image(networks, orientation):
    arrays = svr.export_weights(networks["svr"])
    kernels = [arrays[f"block_{i}/kernel"] for i in range(3)]
    image = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    turned = np.rot90(image, orientation % 4, axes=(1, 2))
    turned = np.ascontiguousarray(turned[:, :, ::-1] if orientation >= 4 else turned)
    back = [np.ascontiguousarray(layers.turned_back(kernel, orientation)) for kernel in kernels]
    expected = layers.trunk(tf.constant(turned), kernels, arrays, "SAME")
    found = layers.trunk(tf.constant(image), back, arrays, "SAME")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    if orientation:
        assert np.abs(found - layers.trunk(tf.constant(image), kernels, arrays, "SAME")).max() > 1e-3


def test_the_first_block_as_a_product_of_patches_is_the_same_block(networks):
    arrays = svr.export_weights(networks["svr"])
    first, *others = (tf.constant(arrays[f"block_{i}/kernel"]) for i in range(3))
    images = tf.constant(np.random.default_rng(0).random((2, 64, 64, 3), np.float32))
    expected = layers.trunk(images, [first, *others], arrays, "SAME")
    product = tf.constant(layers.as_product(arrays["block_0/kernel"]))
    found = layers.trunk(layers.patches(images), [product, *others], arrays, "SAME")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_divergence_is_the_closed_form(networks):
    network = networks["bayesian"]
    network(np.zeros((1, 64, 64, 3), np.float32))
    arrays = bayesian.export_weights(network)
    expected = 0.0
    for name in bayesian.KERNELS:
        mean, deviation = (arrays[f"{name}/{n}"].astype(np.float64) for n in ("mean", "deviation"))
        ratio = deviation / bayesian.prior_deviation(mean.shape)
        scaled = mean / bayesian.prior_deviation(mean.shape)
        expected += 0.5 * np.sum(ratio**2 + scaled**2 - 1 - 2 * np.log(ratio))
    assert float(tf.add_n(network.losses)) == pytest.approx(expected, rel=1e-4)
