from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from gax_batch import tree
from gax_batch.errors import FatalError
from gax_batch.labels import CLASS_COLUMNS, Labels
from gax_batch.models import bayesian, classic
from gax_batch.models.layers import cumulative_probabilities
from training import dense
from training.recipe import DENSE, DenseRecipe

COUNT = 240
RECIPE = DenseRecipe(3e-3, steps=250, voted=32, facts=16)


@pytest.fixture(scope="module")
def planted():
    """Two views of features; the first of them says how smooth a galaxy is, and of which class it is."""
    rng = np.random.default_rng(0)
    cause = rng.uniform(-1, 1, COUNT)
    views = rng.normal(0, 0.05, (2, COUNT, 256)).astype(np.float32)
    views[:, :, 0] += cause
    weighted = np.ones((COUNT, tree.N_ANSWERS), np.float32)
    weighted[:, 0] = np.exp(2 * cause)
    reached = np.full((COUNT, tree.N_QUESTIONS), 40, np.float32)
    known = np.arange(COUNT) >= 160
    reached[known] = 0
    classes = np.where(known, np.where(cause > 0, 0, 4), -1).astype(np.int8)
    return views, Labels([str(i) for i in range(COUNT)], tree.conditional(weighted), reached, classes)


def predicted(model, views):
    x = tf.constant(views[0])
    for layer in model.layers[[layer.name for layer in model.layers].index("features") + 1 :]:
        x = layer(x, training=False)
    return cumulative_probabilities(x).numpy()


def quiet(_line):
    pass


@pytest.mark.parametrize("network", [bayesian, classic])
def test_votes_and_facts_are_learned(planted, network):
    views, labels = planted
    model = network.build(3)
    trunk = model.get_layer("block_1" if network is bayesian else "convolution_1").get_weights()
    dense.fit(model, views, labels, replace(RECIPE, temperature=0.1, decay=0.0), 3, quiet)
    fractions, voted = predicted(model, views), labels.voted
    assert np.sqrt(np.mean((fractions - labels.cumulative)[voted] ** 2)) < 0.06
    paths = fractions[~voted][:, CLASS_COLUMNS]
    assert (paths.argmax(axis=1) == labels.classes[~voted]).mean() > 0.85
    after = model.get_layer("block_1" if network is bayesian else "convolution_1").get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(trunk, after, strict=True))


def test_the_same_seed_gives_the_same_layers_whatever_ran_before(planted):
    views, labels = planted
    exported = []
    for noise in (0, 5):
        tf.random.set_seed(noise)
        tf.random.normal((noise + 1,))
        model = bayesian.build(3)
        dense.fit(model, views, labels, replace(RECIPE, steps=5), 3, quiet)
        exported.append(bayesian.export_weights(model))
    for name, values in exported[0].items():
        np.testing.assert_array_equal(values, exported[1][name], err_msg=name)


def test_at_a_high_temperature_only_the_prior_is_left(planted):
    views, labels = planted
    model = bayesian.build(3)
    recipe = replace(RECIPE, learning_rate=0.03, steps=300, temperature=1e4)
    dense.fit(model, views, labels, recipe, 3, quiet)
    arrays = bayesian.export_weights(model)
    prior = bayesian.prior_deviation((256, 256))
    assert np.median(arrays["hidden/deviation"]) == pytest.approx(prior, rel=0.05)
    assert np.sqrt(np.mean(arrays["hidden/mean"] ** 2)) < 0.1 * prior


def test_decay_shrinks_the_kernels(planted):
    views, labels = planted
    sizes = []
    for decay in (0.0, 1.0):
        model = classic.build(3)
        dense.fit(model, views, labels, replace(RECIPE, decay=decay), 3, quiet)
        sizes.append(np.linalg.norm(classic.export_weights(model)["hidden/kernel"]))
    assert sizes[1] < 0.5 * sizes[0]


def test_a_diverging_training_stops_with_the_step_and_advice(planted):
    views, labels = planted
    broken = replace(labels, fractions=labels.fractions * np.float32(np.nan))
    with pytest.raises(FatalError, match=r"classic: the dense layers' loss is nan at step 1 of 250.*half"):
        dense.fit(classic.build(3), views, broken, RECIPE, 3, quiet)


def test_recipes_can_be_scaled():
    assert DENSE["classic"].scaled(0.5).steps == DENSE["classic"].steps / 2
    assert DENSE["classic"].scaled(1e-9).steps == 1
