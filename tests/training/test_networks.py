import numpy as np
import pytest
import tensorflow as tf

from gax_batch.models import bayesian, classic, svr
from training import checkpoint, networks


@pytest.fixture(scope="module")
def trunk():
    tf.random.set_seed(7)
    return svr.build(7)


def test_convolutions_are_taken_over(trunk):
    kernel = trunk.get_layer("convolution_1").get_weights()[0]
    model = classic.build(7)
    networks.start_from(model, trunk)
    np.testing.assert_array_equal(model.get_layer("convolution_1").get_weights()[0], kernel)
    model = bayesian.build(7)
    networks.start_from(model, trunk)
    mean = model.get_layer("block_1").kernel_posterior.distribution.loc
    np.testing.assert_array_equal(mean, kernel)


def test_a_network_starts_as_the_trunks_function(trunk):
    features = np.random.default_rng(3).uniform(-0.3, 3, (5, 256)).astype(np.float32)
    expected = trunk.get_layer("logits")(features)
    model = classic.build(7)
    networks.start_from(model, trunk)
    found = model.get_layer("logits")(model.get_layer("hidden")(features))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    model = bayesian.build(7)
    networks.start_from(model, trunk)
    arrays = bayesian.export_weights(model)
    hidden = np.maximum(features @ arrays["hidden/mean"] + arrays["hidden/bias"], 0)
    np.testing.assert_allclose(hidden @ arrays["logits/mean"] + arrays["logits/bias"], expected, atol=1e-4)


def test_what_is_exported_is_found_again_unless_a_part_is_missing(tmp_path):
    assert networks.exported(tmp_path) is None
    for name in networks.BUILDERS:
        checkpoint.save(tmp_path / f"export-{name}.safetensors", {"x": np.full(2, len(name), np.float32)})
    found = networks.exported(tmp_path)
    assert found is not None
    assert {name: arrays["x"][0] for name, arrays in found.items()} == {
        name: len(name) for name in networks.BUILDERS
    }
    (tmp_path / "export-svr.safetensors").write_bytes(b"damaged")
    assert networks.exported(tmp_path) is None
