import shutil
import zipfile

import numpy as np
import pytest
from galaxy_images import galaxy_image
from labeled_galaxies import FEW_COLUMNS, random_fractions, unlabeled, write_table

from gax_batch import gz2 as tree
from gax_batch.analysis.evaluation.training_set import trained_by_id
from gax_batch.analysis.labels.tables import DEBIASED_COLUMNS
from gax_batch.errors import UsageError
from gax_batch.imaging.cutout import decode_cutout
from training import data
from training.data import CALIBRATE, REPORT, TRAIN

WHOLE, SOME, FACTS, HART = range(1000, 1040), range(1040, 1046), range(1046, 1056), range(1050, 1056)
TWIN_OF = {1050: 1000, 1051: 1044}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two sets whose numbers collide: galaxies 1050 to 1055 of one are not those of the other."""
    tmp_path = tmp_path_factory.mktemp("sets")
    challenge, gz2 = tmp_path / "challenge", tmp_path / "gz2"
    truth = random_fractions(46).astype(np.float64)
    columns = np.array(tree.CHALLENGE_COLUMNS)
    write_table(
        challenge / "solutions_37.csv",
        ["GalaxyID", *columns],
        [[i, *row] for i, row in zip(WHOLE, truth, strict=False)],
    )
    write_table(
        challenge / "solutions_17.csv",
        ["GalaxyID", *columns[FEW_COLUMNS]],
        [[i, *row[FEW_COLUMNS]] for i, row in zip(SOME, truth[40:], strict=True)],
    )
    classes = [[i, "spiral" if i % 2 else "round", 0 if i % 2 else 1] for i in FACTS[:6]]
    write_table(challenge / "class5.csv", ["galaxy_id", "class5", "strict"], classes)
    write_table(challenge / "class5_none.csv", ["galaxy_id"], [[i] for i in FACTS[6:]])
    write_table(challenge / "argmax.csv", ["GalaxyID", "argmax"], [[i, "Class6.2"] for i in FACTS])
    write_table(challenge / "gz2_twins.csv", ["asset_id", "GalaxyID"], TWIN_OF.items())
    asked = tree.conditional(random_fractions(6, seed=5).astype(np.float64))
    votes = tree.conditional(random_fractions(6, seed=6).astype(np.float64))
    write_table(
        gz2 / "hart16_debiased.csv",
        ["asset_id", *DEBIASED_COLUMNS],
        [[i, *row] for i, row in zip(HART, asked, strict=True)],
    )
    write_table(
        gz2 / "hart16_votes.csv",
        ["asset_id", "total_classifications", *tree.HART16_COLUMNS],
        [[i, 30, *row] for i, row in zip(HART, votes, strict=True)],
    )
    (challenge / "images").mkdir()
    (gz2 / "images").mkdir()
    for part in range(2):
        with zipfile.ZipFile(challenge / "images" / f"part{part}.zip", "w") as archive:
            for i in range(1000 + part, 1056, 2):
                galaxy_image(i).save(tmp_path / "image.jpg")
                archive.write(tmp_path / "image.jpg", f"{i}.jpg")
    for i in HART:
        galaxy_image(5000 + i).save(gz2 / "images" / f"{i}.png")
    (tmp_path / "image.jpg").unlink()
    return tmp_path


def load(folder, lines=None):
    return data.load(folder, folder / "cache", (lines if lines is not None else []).append)


@pytest.fixture(scope="module")
def galaxies(made):
    return load(made)


@pytest.fixture
def folder(made, galaxies, tmp_path):
    """A copy, to change; the windows that are decoded already included."""
    return shutil.copytree(made, tmp_path / "copy")


def row_of(galaxies, key):
    return galaxies.keys.index(key)


def test_one_number_of_two_numberings_is_two_galaxies(folder, galaxies):
    assert len(galaxies) == 56 + 6
    ours, theirs = row_of(galaxies, "GalaxyID:1052"), row_of(galaxies, "asset_id:1052")
    assert np.isnan(galaxies.cumulative[ours]).all()
    assert galaxies.classes[ours] == 5
    assert np.isfinite(galaxies.cumulative[theirs]).all()
    assert galaxies.classes[theirs] == -1
    cutouts = galaxies.cutouts(np.array([ours, theirs])).astype(float)
    path = folder / "image.png"
    for place, number in enumerate((1052, 6052)):
        galaxy_image(number).save(path)
        expected, _ = decode_cutout(path.read_bytes())
        # One of the images was compressed with losses.
        distances = np.abs(cutouts - expected).mean(axis=(1, 2, 3))
        assert distances.argmin() == place


def test_cutouts_are_the_pixels_of_inference(folder, galaxies):
    rows = np.array([row_of(galaxies, f"asset_id:{i}") for i in HART])
    for i, cutout in zip(HART, galaxies.cutouts(rows), strict=True):
        expected, _ = decode_cutout((folder / "gz2" / "images" / f"{i}.png").read_bytes())
        np.testing.assert_array_equal(cutout, expected)


def test_every_table_is_read_as_published(galaxies):
    whole, some = row_of(galaxies, "GalaxyID:1003"), row_of(galaxies, "GalaxyID:1045")
    truth = random_fractions(46)
    np.testing.assert_allclose(galaxies.cumulative[whole], truth[3], atol=1e-5)
    np.testing.assert_allclose(galaxies.cumulative[some, FEW_COLUMNS], truth[45, FEW_COLUMNS], atol=1e-5)
    assert np.isfinite(galaxies.cumulative[some]).sum() == len(FEW_COLUMNS)
    facts = [row_of(galaxies, f"GalaxyID:{i}") for i in FACTS]
    assert galaxies.classes[facts].tolist() == [0, 4, 0, 4, 0, 4, 5, 5, 5, 5]
    assert galaxies.strict[facts].tolist() == [True, False] * 3 + [True] * 4
    assert np.all(galaxies.largest[facts] == 4)
    assert galaxies.representative.sum() == 46
    assert galaxies.complete.sum() == 40


def test_weighted_votes_are_never_taken_for_debiased_fractions(galaxies):
    rows = [row_of(galaxies, f"asset_id:{i}") for i in HART]
    debiased, votes = (random_fractions(6, seed=seed) for seed in (5, 6))
    np.testing.assert_allclose(galaxies.cumulative[rows], debiased, atol=1e-4)
    np.testing.assert_allclose(galaxies.weighted[rows], votes, atol=1e-4)
    assert np.all(galaxies.volunteers[rows] == 30)
    others = np.setdiff1d(np.arange(len(galaxies)), rows)
    assert np.isnan(galaxies.weighted[others]).all()
    assert np.all(galaxies.volunteers[others] == 0)


def test_a_set_with_weighted_votes_alone_has_no_debiased_fractions(folder):
    (folder / "gz2" / "hart16_debiased.csv").unlink()
    galaxies = load(folder)
    rows = [row_of(galaxies, f"asset_id:{i}") for i in HART]
    assert np.isnan(galaxies.cumulative[rows]).all()
    assert np.isfinite(galaxies.weighted[rows]).all()


def test_only_the_challenges_own_fractions_are_representative_and_judge(galaxies):
    rows = np.array([row_of(galaxies, f"asset_id:{i}") for i in HART])
    assert not galaxies.representative[rows].any()
    assert np.all(galaxies.trust[rows] == np.float32(data.HART_TRUST))
    assert not galaxies.labels(rows).voted.any()
    labels = galaxies.labels(np.arange(len(galaxies)))
    assert labels.voted.sum() == 46
    assert labels.definition == "debiased"
    assert np.all(labels.volunteers[labels.voted] == 40)
    assert labels.classes.max() == 5


def test_twins_are_in_one_sample(galaxies):
    for other, own in TWIN_OF.items():
        first, second = row_of(galaxies, f"asset_id:{other}"), row_of(galaxies, f"GalaxyID:{own}")
        assert galaxies.sample[first] == galaxies.sample[second]
        assert galaxies.twins[f"asset_id:{other}"] == f"GalaxyID:{own}"


def test_samples_are_disjoint_and_follow_the_hash_of_the_key(galaxies):
    rows = [galaxies.rows(sample) for sample in (TRAIN, CALIBRATE, REPORT)]
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.arange(len(galaxies)))
    for row, key in enumerate(galaxies.keys):
        if key.startswith("GalaxyID"):
            assert galaxies.sample[row] == data.sample_of(key, bool(galaxies.representative[row]))


def test_galaxies_stay_in_their_sample_when_others_are_added(folder, galaxies):
    before = dict(zip(galaxies.keys, galaxies.sample.tolist(), strict=True))
    truth = random_fractions(20, seed=9).astype(np.float64)
    place = folder / "more"
    write_table(
        place / "solutions_37.csv",
        ["GalaxyID", *tree.CHALLENGE_COLUMNS],
        [[i, *row] for i, row in zip(range(20), truth, strict=True)],
    )
    (place / "images").mkdir()
    for i in range(20):
        galaxy_image(i).save(place / "images" / f"{i}.jpg")
    after = load(folder)
    assert len(after) == len(galaxies) + 20
    found = dict(zip(after.keys, after.sample.tolist(), strict=True))
    assert {key: found[key] for key in before} == before


@pytest.mark.parametrize("representative", [True, False])
def test_samples_have_their_shares(representative):
    samples = np.array([data.sample_of(f"GalaxyID:{i}", representative) for i in range(5000)])
    first, second = data.SHARES[representative]
    expected = np.array([first, second - first, 100 - second]) / 100
    np.testing.assert_allclose(np.bincount(samples) / 5000, expected, atol=0.025)


def test_a_bundle_remembers_who_trained_it_and_their_twins(galaxies):
    manifest = {"training": {"ids_sha256": galaxies.trained_ids()}}
    labels = galaxies.labels(np.flatnonzero(np.char.startswith(galaxies.keys, "GalaxyID")))
    names = [key.partition(":")[2] for key in galaxies.keys if key.startswith("GalaxyID")]
    labels = type(labels).of_fractions(
        names, labels.cumulative, 40, definition="debiased", numbering="GalaxyID"
    )
    own = np.flatnonzero(np.char.startswith(galaxies.keys, "GalaxyID"))
    np.testing.assert_array_equal(trained_by_id(manifest, labels), galaxies.sample[own] == TRAIN)
    train = {key for key, s in zip(galaxies.keys, galaxies.sample, strict=True) if s == TRAIN}
    both = train | {galaxies.twins[key] for key in train & set(galaxies.twins)}
    assert len(galaxies.trained_ids()) == len(both)


def test_what_is_left_out_is_counted(folder):
    (folder / "gz2" / "images" / "1055.png").rename(folder / "gz2" / "images" / "9999.png")
    lines = []
    assert len(load(folder, lines)) == 61
    text = "\n".join(lines)
    assert "asset_id:1055" in text
    assert "asset_id:9999" in text


def test_too_few_representative_galaxies_and_missing_parts_are_refused(folder):
    with pytest.raises(UsageError, match="images"):
        data.load(folder / "gz2" / "images", folder / "cache", [].append)
    (folder / "challenge" / "solutions_37.csv").unlink()
    with pytest.raises(UsageError, match=r"\b\d+\b"):
        load(folder)
    for path in (folder / "challenge" / "images").iterdir():
        path.unlink()
    for path in (folder / "gz2" / "images").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match="images_training_rev1"):
        load(folder)


def test_the_digest_follows_keys_labels_and_samples():
    galaxies = unlabeled(4, cumulative=random_fractions(4))
    before = galaxies.digest()
    assert unlabeled(4, cumulative=random_fractions(4)).digest() == before
    changed = random_fractions(4)
    changed[0, 0] += 1e-3
    others = [
        unlabeled(4, cumulative=changed),
        unlabeled(4, cumulative=random_fractions(4), classes=np.full(4, 2, np.int8)),
        unlabeled(4, cumulative=random_fractions(4), sample=np.full(4, REPORT, np.int8)),
        unlabeled(4, cumulative=random_fractions(4), keys=["a", "b", "c", "d"]),
    ]
    assert all(other.digest() != before for other in others)
