"""Which pass and head make a draw, and the mean, variance and freedom of draws that share passes."""

import numpy as np
import pytest

from gax_batch.models.nesting import DEFAULT, Nesting, freedom, mean_variance, stages, variance


@pytest.mark.parametrize(
    ("draws", "passes", "heads"), [(64, 8, 8), (64, 16, 4), (3, 8, 1), (20, 8, 3), (32, 32, 1)]
)
def test_draws_are_shared_out_among_passes(draws, passes, heads):
    nesting = Nesting.of(draws, passes)
    places = [nesting.place(draw) for draw in range(draws)]
    assert len(set(places)) == draws
    assert {number for number, _ in places} == set(range(min(draws, passes)))
    assert (nesting.passes, nesting.heads) == (min(draws, passes), heads)
    assert {head for _, head in places} == set(range(heads))


def test_the_first_draws_do_not_depend_on_their_number():
    many = [Nesting.of(64, 8).place(draw) for draw in range(64)]
    assert [Nesting.of(10, 8).place(draw) for draw in range(10)] == many[:10]
    sets = Nesting(4 * DEFAULT.draws, DEFAULT.heads)
    assert [sets.place(draw) for draw in range(64)] == many


def test_blocks_are_pairs_of_antithetic_passes():
    nesting = Nesting(128, 8)
    blocks = nesting.blocks()
    passes = np.array([nesting.place(draw)[0] for draw in range(128)])
    assert np.bincount(blocks).tolist() == [16] * 8
    for block in range(8):
        first, second = np.unique(passes[blocks == block])
        assert second == first + 4


@pytest.mark.parametrize(
    ("draws", "lengths"),
    [(128, [128]), (256, [128, 128]), (320, [128, 128, 64]), (1024, [128, 128, 256, 512])],
)
def test_stages_are_whole_sets_each_as_many_as_before(draws, lengths):
    found = stages(draws)
    assert [len(stage) for stage in found] == lengths
    assert [k for stage in found for k in stage] == list(range(draws))


def test_independent_draws_have_the_usual_variance_and_freedom():
    values = np.random.default_rng(0).normal(size=(4, 50))
    nesting = Nesting(4, 1)
    np.testing.assert_allclose(variance(values, nesting.blocks()), values.var(axis=0, ddof=1))
    np.testing.assert_allclose(mean_variance(values, nesting.blocks()), values.var(axis=0, ddof=1) / 4)
    np.testing.assert_allclose(freedom(values, nesting), 3)


def simulate(nesting: Nesting, between: float, within: float, count: int, seed: int = 0) -> np.ndarray:
    """Draws of `count` numbers that are linear in the weights but for a tenth, which is even in them.

    Returns `[S, count]`; of one draw, the variance is `1.02` times the sum of the squared deviations.
    """
    rng = np.random.default_rng(seed)
    passes, heads = {}, {}

    def one(known, key, mirrored):
        normal = known.setdefault(key, rng.normal(size=count))
        return (-normal if mirrored else normal) + 0.1 * (np.square(normal) - 1)

    rows = []
    for draw in range(nesting.draws):
        number, head = nesting.place(draw)
        pair, mirrored = (number // 8, number % 4), number % 8 >= 4
        own = one(heads, (number, head // 2), head % 2 == 1)
        rows.append(between * one(passes, pair, mirrored) + within * own)
    return np.stack(rows)


@pytest.mark.parametrize(("between", "within"), [(0.03, 0.0), (0.0, 0.03), (0.02, 0.02)])
@pytest.mark.parametrize("nesting", [Nesting(64, 8), Nesting(128, 8), Nesting(32, 1)])
def test_variances_are_unbiased(nesting, between, within):
    count = 20_000
    values = simulate(nesting, between, within, count)
    true = 1.02 * (between**2 + within**2)
    # Of 4 pairs, a variance has a deviation of 0.7; of their mean over 20,000, 0.005.
    assert variance(values, nesting.blocks()).mean() == pytest.approx(true, rel=0.02)
    scatter = values.mean(axis=0).var(ddof=1)
    assert mean_variance(values, nesting.blocks()).mean() == pytest.approx(scatter, rel=0.03)


@pytest.mark.parametrize(("between", "within"), [(0.03, 0.0), (0.0, 0.03), (0.02, 0.02)])
def test_the_freedom_is_that_of_the_variances_scatter(between, within):
    nesting = Nesting(64, 8)
    values = simulate(nesting, between, within, 20_000)
    found = variance(values, nesting.blocks())
    # A variance of f degrees of freedom scatters by the root of 2 / f of itself.
    expected = 2 * np.square(found.mean()) / found.var()
    assert np.median(freedom(values, nesting)) == pytest.approx(expected, rel=0.35)


def test_between_orientations_only_one_set_counts_what_is_no_error():
    orientations = np.array([0.0, 1, 2, 3])
    one, two = Nesting(64, 8), Nesting(128, 8)
    values = orientations[two.blocks() % 4]
    assert mean_variance(values[:64], one.blocks()) > 0.1
    assert mean_variance(values, two.blocks()) == 0


def test_draws_that_agree_have_no_variance():
    values = np.full((64, 2), 0.25)
    assert (variance(values, DEFAULT.blocks()) == 0).all()
    assert np.isinf(freedom(values, DEFAULT)).all()
