import shutil
import zipfile

import pytest
from archives import pack_zip

from gax_batch.analysis.evaluation import image_files
from gax_batch.errors import UsageError


def test_one_zip_is_read_as_its_folder(image_folder, tmp_path):
    pack_zip(
        tmp_path / "images.zip", image_folder, sorted(p.name for p in image_folder.iterdir()), "deep/er/"
    )
    found = image_files.list_images(tmp_path / "images.zip")
    assert {key: name for key, (_, name) in found.items()} == {
        f"00000{i}": f"deep/er/00000{i}.jpg" for i in range(5)
    }


def test_what_macs_and_editors_leave_in_archives_is_no_image(tmp_path, image_folder):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.write(image_folder / "000000.jpg", "a/1.JPG")
        for name in ("__MACOSX/a/._1.jpg", "a/.2.jpg", "a/readme.txt", "a/"):
            archive.writestr(name, b"")
    assert list(image_files.list_images(tmp_path / "images.zip")) == ["1"]


def test_two_images_of_one_galaxy_are_refused(image_zips, image_folder):
    shutil.copy(image_folder / "000001.jpg", image_zips / "000001.jpg")
    with pytest.raises(UsageError, match="000001"):
        image_files.list_images(image_zips)


def test_a_damaged_zip_and_what_is_no_place_of_images_are_refused(image_zips, tmp_path):
    archive = image_zips / "first.zip"
    archive.write_bytes(archive.read_bytes()[:50])
    with pytest.raises(UsageError, match=r"first\.zip"):
        image_files.list_images(image_zips)
    for place in (tmp_path / "absent", archive):
        with pytest.raises(UsageError, match=place.name):
            image_files.list_images(place)


def test_zips_are_told_from_folders_of_images(image_folder, image_zips):
    assert image_files.holds_zips(image_zips)
    assert image_files.holds_zips(image_zips / "first.zip")
    assert not image_files.holds_zips(image_folder)
    assert not image_files.holds_zips(image_folder / "absent")


def test_images_are_read_from_zips_and_beside_them(image_folder, image_zips):
    found = image_files.list_images(image_zips)
    for name, data in image_files.read_images([found[f"00000{i}"] for i in range(5)]):
        assert data == (image_folder / name.rpartition("/")[2]).read_bytes()
