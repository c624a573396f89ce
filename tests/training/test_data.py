import csv
import zipfile

import numpy as np
import pytest
from PIL import Image

from gax_batch import tree
from gax_batch.errors import UsageError
from gax_batch.imaging import decode_cutout
from training import data, images


def picture(path, seed):
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (212, 212, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    """30 galaxies with votes, 30 with a class or without, and an image too many and one too few."""
    rng = np.random.default_rng(0)
    for name in ("gz2", "kaggle"):
        (tmp_path / name / "images").mkdir(parents=True)
    with (tmp_path / "gz2" / "hart16_votes.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["asset_id", "total_classifications", *tree.HART16_COLUMNS])
        for i in range(31):
            fractions = tree.conditional(rng.gamma(0.8, size=tree.N_ANSWERS) + 1e-3)
            writer.writerow([i, 40, *fractions])
    rows = [f"{100 + i},{'spiral' if i % 2 else ''}" for i in range(30)]
    (tmp_path / "kaggle" / "class5.csv").write_text("galaxy_id,class5\n" + "\n".join(rows) + "\n")
    for i in range(30):
        picture(tmp_path / "gz2" / "images" / f"{i}.png", i)
        picture(tmp_path / "kaggle" / "images" / f"{100 + i}.png", i)
    picture(tmp_path / "gz2" / "images" / "9999.png", 5)
    return tmp_path


def load(folder, lines=None):
    return data.load(folder, folder / "cache", (lines if lines is not None else []).append)


def test_all_tables_below_a_folder_are_read_with_a_summary_of_what_is_left_out(folder):
    lines = []
    galaxies = load(folder, lines)
    assert len(galaxies) == 45
    assert galaxies.labels.voted.sum() == 30
    assert (galaxies.labels.classes == 4).sum() == 15
    text = "\n".join(lines)
    assert "30 galaxies with labels and an image" in text
    assert "1 labels without an image (30, ...)" in text
    assert "1 images without a label (9999, ...)" in text
    assert "15 rows that say nothing" in text


def test_cutouts_are_the_pixels_of_inference(folder):
    galaxies = load(folder)
    cutouts = galaxies.cutouts(np.arange(3))
    for name, cutout in zip(galaxies.labels.ids, cutouts, strict=False):
        expected, _ = decode_cutout((folder / "gz2" / "images" / f"{name}.png").read_bytes())
        np.testing.assert_array_equal(cutout, expected)


def test_windows_are_decoded_once_and_mapped(folder, monkeypatch):
    first = load(folder)
    monkeypatch.setattr(images, "_decode", None)
    again = load(folder)
    np.testing.assert_array_equal(first.windows, again.windows)
    assert isinstance(first.windows.base, np.memmap) or isinstance(first.windows, np.memmap)


def test_a_zip_is_read_as_its_folder(folder):
    plain = load(folder)
    place = folder / "kaggle"
    with zipfile.ZipFile(place / "images.zip", "w") as archive:
        for path in sorted((place / "images").iterdir()):
            archive.write(path, f"images_training_rev1/{path.name}")
            path.unlink()
    (place / "images").rmdir()
    zipped = data.load(folder, folder / "other", [].append)
    np.testing.assert_array_equal(plain.windows, zipped.windows)


def test_bad_sets_are_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="no labels"):
        data.find_tables(tmp_path / "gz2" / "images")
    (folder / "kaggle" / "images" / "101.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(UsageError, match=r"1 images cannot be used: 101.png"):
        load(folder)
    for path in (folder / "kaggle" / "images").iterdir():
        path.unlink()
    (folder / "kaggle" / "images").rmdir()
    with pytest.raises(UsageError, match="has no images beside it"):
        load(folder)


def test_a_galaxy_of_two_tables_would_leak_and_is_refused(folder):
    table = folder / "kaggle" / "class5.csv"
    table.write_text(table.read_text() + "7,spiral\n")
    picture(folder / "kaggle" / "images" / "7.png", 3)
    with pytest.raises(UsageError, match="1 galaxies are in more than one table"):
        load(folder)


def test_a_fold_is_a_property_of_the_id_and_all_are_about_as_large():
    folds = np.array([data.fold_of(str(i)) for i in range(5000)])
    assert data.fold_of("100303") == data.fold_of("100303")
    assert np.all(np.abs(np.bincount(folds) - 1000) < 100)


def test_the_digest_follows_the_labels(folder):
    galaxies, again = load(folder), load(folder)
    assert galaxies.digest() == again.digest()
    again.labels.classes[-1] = 2
    assert galaxies.digest() != again.digest()


def test_simulated_galaxies_come_with_votes_and_a_rim():
    galaxies = data.simulated(20, 3)
    assert galaxies.windows.shape == (20, 106, 106, 3)
    assert galaxies.labels.voted.all()
    assert tree.inconsistency(galaxies.labels.cumulative) < 1e-5
