import numpy as np
import pytest

from gax_batch import tree
from gax_batch.imaging import decode_cutout
from training import data


def test_the_split_is_a_property_of_the_id_and_about_four_to_one_to_one():
    splits = [data.split_of(str(i)) for i in range(6000)]
    assert data.split_of("100303") == data.split_of("100303")
    assert splits.count("train") == pytest.approx(4000, abs=150)
    assert splits.count("test") == pytest.approx(1000, abs=100)
    assert splits.count("calibration") == pytest.approx(1000, abs=100)


def test_votes_follow_the_tree():
    weighted = np.zeros((1, tree.N_ANSWERS))
    weighted[0, :3] = [0.4, 0.5, 0.1]
    weighted[0, 3:5] = [0.2, 0.7]  # published fractions do not always sum to 1
    weighted[0, 13:15] = [0.25, 0.75]
    fractions, reached = data.votes(weighted, np.array([40.0]))
    np.testing.assert_allclose(fractions[0, 3:5], [2 / 9, 7 / 9], rtol=1e-6)
    np.testing.assert_allclose(reached[0, [0, 1, 5]], [40, 20, 40], rtol=1e-6)
    # Nobody answered the bar's question, and the roundness's.
    assert np.all(reached[0, [2, 6]] == 0)
    np.testing.assert_allclose(fractions[0, 5:7], 0.5)


@pytest.fixture(scope="module")
def galaxies(shared_data, tmp_path_factory):
    """The first 12 real galaxies."""
    folder = tmp_path_factory.mktemp("gz2")
    lines = (shared_data / "gz2" / "hart16_votes.csv").read_text().splitlines()[:13]
    (folder / "hart16_votes.csv").write_text("\n".join(lines) + "\n")
    (folder / "images").symlink_to(shared_data / "gz2" / "images")
    return data.load(folder)


def test_cutouts_are_the_pixels_of_inference(galaxies, shared_data):
    for name, cutout in zip(galaxies.ids, galaxies.cutouts, strict=True):
        expected, _ = decode_cutout((shared_data / "gz2" / "images" / f"{name}.jpg").read_bytes())
        np.testing.assert_array_equal(cutout, expected)


def test_labels_are_the_published_cumulative_fractions(galaxies, shared_data):
    table = np.genfromtxt(shared_data / "gz2" / "kaggle37_fractions.csv", delimiter=",", skip_header=1)
    published = {str(int(row[0])): row[1:] for row in table}
    expected = np.array([published[name] for name in galaxies.ids])
    assert tree.inconsistency(galaxies.cumulative) < 1e-5
    assert np.median(np.abs(galaxies.cumulative - expected)) < 0.002


def test_the_digest_follows_the_labels(galaxies):
    changed = data.Galaxies(galaxies.ids, galaxies.windows, galaxies.fractions * 0.5, galaxies.reached)
    assert (
        galaxies.digest()
        == data.Galaxies(galaxies.ids, galaxies.windows, galaxies.fractions.copy(), galaxies.reached).digest()
    )
    assert changed.digest() != galaxies.digest()


def test_every_galaxy_is_in_exactly_one_split(galaxies):
    parts = [galaxies.subset(name).ids for name in data.SPLITS]
    assert sorted(name for part in parts for name in part) == sorted(galaxies.ids)
