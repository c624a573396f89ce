import numpy as np
import pytest

from gax_batch import tree
from gax_batch.labels import CLASS_COLUMNS, Labels
from gax_batch.models import bayesian, svr
from training import head

INPUTS = 6


def fractions_of(logits):
    return tree.conditional(np.exp(logits)).astype(np.float32)


@pytest.fixture
def planted():
    """Inputs, and the votes that a known last layer makes of them."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(3, 2, (400, INPUTS)).astype(np.float32)
    kernel = rng.normal(0, 0.4, (INPUTS, tree.N_ANSWERS))
    fractions = fractions_of((inputs - 3) @ kernel)
    reached = np.full((400, tree.N_QUESTIONS), 40, np.float32)
    return inputs, Labels([str(i) for i in range(400)], fractions, reached, np.full(400, -1, np.int8))


def test_the_layer_that_made_the_votes_is_found(planted, monkeypatch):
    monkeypatch.setattr(head, "PULL", 1e-4)
    inputs, labels = planted
    kernel, bias = head.solve(inputs, labels)
    error = tree.cumulative(fractions_of(inputs @ kernel + bias)) - labels.cumulative
    assert np.sqrt(np.mean(error**2)) < 0.01  # a Dirichlet-multinomial shrinks rare answers a little


def test_the_pull_keeps_weights_small(planted, monkeypatch):
    inputs, labels = planted
    sizes = []
    for pull in (1e-4, 1.5, 100.0):
        monkeypatch.setattr(head, "PULL", pull)
        sizes.append(np.linalg.norm(head.solve(inputs, labels)[0]))
    assert sizes[0] > sizes[1] > 3 * sizes[2]


def test_a_nearly_dead_input_gets_no_giant_weight(planted):
    inputs, labels = planted
    inputs[:, 0] = 3 + 1e-6 * (inputs[:, 0] - 3)
    kernel, _ = head.solve(inputs, labels)
    assert np.abs(kernel[0]).max() < np.abs(kernel[1:]).max()


def test_facts_make_their_classes_lead(planted, monkeypatch):
    monkeypatch.setattr(head, "PULL", 1e-2)
    inputs, labels = planted
    known = np.arange(200, 400)
    inputs[known, 1] += 20  # seen to be of another kind, so that no vote contradicts the facts
    classes = (inputs[:, 0] > 3).astype(np.int8)  # round below, in between above
    reached = labels.reached.copy()
    reached[known] = 0
    right = []
    for told in (np.full(400, -1, np.int8), np.where(np.isin(np.arange(400), known), classes, np.int8(-1))):
        kernel, bias = head.solve(inputs, Labels(labels.ids, labels.fractions, reached, told))
        paths = tree.cumulative(fractions_of(inputs @ kernel + bias))[:, CLASS_COLUMNS]
        right.append((paths.argmax(axis=1) == classes)[known].mean())
    assert right[0] < 0.7
    assert right[1] > 0.85


def test_features_are_those_of_the_four_rotations():
    model = svr.build(1)
    images = np.random.default_rng(0).integers(0, 255, (3, 64, 64, 3)).astype(np.uint8)
    views = head.features_of(model, images, batch=2)
    assert views.shape == (4, 3, 256)
    kernel, bias = model.get_layer("logits").get_weights()
    for quarter, view in enumerate(views):
        turned = np.rot90(images, quarter, axes=(1, 2)).astype(np.float32) / 255
        np.testing.assert_allclose(view @ kernel + bias, model(turned).numpy(), atol=1e-4)


def test_a_bayesian_networks_views_hold_its_spread():
    image = np.full((1, 64, 64, 3), 90, np.uint8)  # looks the same from all sides
    views = head.features_of(bayesian.build(1), image, batch=1)
    assert views.std(axis=0).max() > 1e-4
