from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from labeled_galaxies import bright_and_faint, unlabeled

from gax_batch import gz2
from gax_batch.analysis.labels import CLASS_CONDITIONS
from gax_batch.errors import FatalError
from gax_batch.models import bayesian, classic
from gax_batch.models.layers import cumulative_probabilities
from training import dense
from training.recipe import DenseRecipe
from training.targets import targets_of
from training.train import Batches

COUNT = 240
RECIPE = DenseRecipe(3e-3, (32, 1, 1, 16, 1), 250, teacher_share=0.0)


@pytest.fixture(scope="module")
def planted():
    """Two views of features; the first of them says how smooth a galaxy is, and of which class it is."""
    rng = np.random.default_rng(0)
    cause = rng.uniform(-1, 1, COUNT)
    views = rng.normal(0, 0.05, (2, COUNT, 256)).astype(np.float32)
    views[:, :, 0] += cause
    raw = np.ones((COUNT, gz2.N_ANSWERS), np.float32)
    raw[:, 0] = np.exp(2 * cause)
    truth = gz2.cumulative(gz2.conditional(raw))
    known = np.arange(COUNT) >= 160
    classes = np.where(known, np.where(cause > 0, 0, 4), -1).astype(np.int8)
    truth[known] = np.nan
    galaxies = unlabeled(COUNT, cumulative=truth, classes=classes)
    return views, galaxies, targets_of(galaxies), Batches.of(galaxies, 3)


def predicted(model, views):
    x = tf.constant(views[0])
    for layer in model.layers[[layer.name for layer in model.layers].index("features") + 1 :]:
        x = layer(x, training=False)
    return cumulative_probabilities(x).numpy()


def quiet(_line):
    pass


@pytest.mark.parametrize("network", [bayesian, classic])
def test_votes_and_facts_are_learned(planted, network):
    views, galaxies, targets, batches = planted
    model = network.build(3)
    trunk = model.get_layer("block_1" if network is bayesian else "convolution_1").get_weights()
    dense.fit(model, views, targets, batches, replace(RECIPE, temperature=0.1, decay=0.0), quiet)
    fractions, voted = predicted(model, views), galaxies.representative
    assert np.sqrt(np.mean((fractions - galaxies.cumulative)[voted] ** 2)) < 0.06
    paths = fractions[~voted][:, [conditions[-1][0] for conditions in CLASS_CONDITIONS]]
    assert (paths.argmax(axis=1) == galaxies.classes[~voted]).mean() > 0.85
    after = model.get_layer("block_1" if network is bayesian else "convolution_1").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(trunk, after, strict=True))


def test_the_same_seed_gives_the_same_layers_whatever_ran_before(planted):
    views, _, targets, batches = planted
    exported = []
    for noise in (0, 5):
        tf.random.set_seed(noise)
        tf.random.normal((noise + 1,))
        model = bayesian.build(3)
        dense.fit(model, views, targets, batches, replace(RECIPE, steps=5), quiet)
        exported.append(bayesian.export_weights(model))
    for name, values in exported[0].items():
        np.testing.assert_array_equal(values, exported[1][name], err_msg=name)


def test_at_a_high_temperature_only_the_prior_is_left(planted):
    views, _, targets, batches = planted
    model = bayesian.build(3)
    recipe = replace(RECIPE, learning_rate=0.03, steps=300, temperature=1e4)
    dense.fit(model, views, targets, batches, recipe, quiet)
    arrays = bayesian.export_weights(model)
    prior = bayesian.prior_deviation((256, 256))
    assert np.median(arrays["hidden/deviation"]) == pytest.approx(prior, rel=0.05)
    assert np.sqrt(np.mean(arrays["hidden/mean"] ** 2)) < 0.1 * prior


def test_decay_shrinks_the_kernels(planted):
    views, _, targets, batches = planted
    sizes = []
    for decay in (0.0, 1.0):
        model = classic.build(3)
        dense.fit(model, views, targets, batches, replace(RECIPE, decay=decay), quiet)
        sizes.append(np.linalg.norm(classic.export_weights(model)["hidden/kernel"]))
    assert sizes[1] < 0.5 * sizes[0]


def test_a_diverging_training_stops_with_the_step(planted):
    views, _, targets, batches = planted
    broken = targets | {"reached": targets["reached"] * np.float32(np.nan)}
    with pytest.raises(FatalError, match=r"\b1\b.*\b250\b"):
        dense.fit(classic.build(3), views, broken, batches, RECIPE, quiet)


def test_features_are_those_of_an_image_and_of_its_turn():
    images = bright_and_faint(4).cutouts(np.arange(3))
    model = classic.build(3)
    views = dense.features_of(model, images, batch=2)
    assert views.shape == (2, 3, 256)
    turned = dense.features_of(model, np.rot90(images, 1, (1, 2)), batch=2)
    np.testing.assert_allclose(turned[0], views[1], atol=1e-5)
