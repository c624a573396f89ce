import numpy as np
import pytest
from labeled_galaxies import bright_and_faint

from gax_batch import gz2
from gax_batch.models import classic
from training import dropout

CUTOUTS = bright_and_faint(4).cutouts(np.arange(3))


@pytest.fixture(scope="module")
def arrays():
    return classic.export_weights(classic.build(1))


def test_draws_follow_the_seed_and_fit_the_tree(arrays):
    draws = dropout.draws(arrays, CUTOUTS, 4, 7)
    assert draws.shape == (4, 3, 37)
    assert gz2.inconsistency(draws) < 1e-5
    assert np.all(draws.std(axis=0).max(axis=1) > 0)
    np.testing.assert_array_equal(draws, dropout.draws(arrays, CUTOUTS, 4, 7))
    assert not np.array_equal(draws, dropout.draws(arrays, CUTOUTS, 4, 8))


def test_without_dropping_units_a_draw_is_the_network(arrays, monkeypatch):
    monkeypatch.setattr(classic, "DROPOUT", 0.0)
    model = classic.build(1)
    logits = model(CUTOUTS.astype(np.float32) / 255)
    expected = [np.exp(logits[:, q.columns]) for q in gz2.QUESTIONS]
    fractions = gz2.cumulative(gz2.conditional(np.concatenate(expected, axis=1)))
    np.testing.assert_allclose(dropout.draws(arrays, CUTOUTS, 1, 7)[0], fractions, atol=1e-4)
