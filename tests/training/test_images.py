import numpy as np
import pytest
from galaxy_images import galaxy_image

from gax_batch.analysis.evaluation.image_files import list_images
from gax_batch.errors import UsageError
from gax_batch.imaging.cutout import IMAGE_SIDE, decode_cutout
from training import images
from training.images import FINE_SIDE, WINDOW_SIDE


def test_a_folder_of_zips_is_read_as_the_folder_of_their_images(image_folder, image_zips, tmp_path):
    plain, zipped = list_images(image_folder), list_images(image_zips)
    assert set(plain) == set(zipped) == {f"00000{i}" for i in range(5)}
    windows = [
        images.write_windows(tmp_path / f"{name}.npy", [found[key] for key in sorted(found)])
        for name, found in (("plain", plain), ("zipped", zipped))
    ]
    np.testing.assert_array_equal(*windows)
    assert windows[0].shape == (5, WINDOW_SIDE, WINDOW_SIDE, 3)


def test_images_that_cannot_be_decoded_are_refused_and_leave_no_file(image_folder, tmp_path):
    (image_folder / "000002.jpg").write_bytes(b"broken")
    places = list(list_images(image_folder).values())
    with pytest.raises(UsageError, match=r"1 .*000002\.jpg"):
        images.write_windows(tmp_path / "windows.npy", places)
    assert not list(tmp_path.glob("windows*"))


def test_the_center_of_a_window_is_the_cutout_of_inference_and_fine_ones_show_the_same_sky(tmp_path):
    path = tmp_path / "1.png"
    galaxy_image(3, side=212).save(path)
    place = [(tmp_path, "1.png")]
    window = images.write_windows(tmp_path / "windows.npy", place)[0]
    fine = images.write_windows(tmp_path / "fine.npy", place, FINE_SIDE)[0]
    margin = (WINDOW_SIDE - IMAGE_SIDE) // 2
    cutout, _ = decode_cutout(path.read_bytes())
    np.testing.assert_array_equal(window[margin:-margin, margin:-margin], cutout)
    assert fine.shape == (212, 212, 3)
    means = fine.reshape(WINDOW_SIDE, 2, WINDOW_SIDE, 2, 3).mean(axis=(1, 3))
    assert np.abs(means - window).max() <= 1


def test_windows_are_decoded_once_and_mapped(image_folder, tmp_path, monkeypatch):
    places = list(list_images(image_folder).values())
    first = images.write_windows(tmp_path / "windows.npy", places)
    monkeypatch.setattr(images, "_decode", None)
    again = images.write_windows(tmp_path / "windows.npy", places)
    np.testing.assert_array_equal(first, again)
    assert isinstance(again.base, np.memmap) or isinstance(again, np.memmap)
    assert not again.flags.writeable


def test_the_digest_follows_the_files(image_folder):
    places = list(list_images(image_folder).values())
    before = images.digest(places)
    assert images.digest(places) == before
    assert images.digest(places[1:]) != before
    (image_folder / "000001.jpg").write_bytes(b"longer or shorter")
    assert images.digest(places) != before
