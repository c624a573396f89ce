import shutil
import zipfile

import pytest
from fakes import pack_zip, write_images, write_zips

from gax_batch.analysis.evaluation import image_files
from gax_batch.errors import UsageError


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path / "plain", 5)
    return tmp_path / "plain"


@pytest.fixture
def zips(tmp_path, folder):
    return write_zips(tmp_path / "zips", folder)


def test_one_zip_is_read_as_its_folder(folder, tmp_path):
    pack_zip(tmp_path / "images.zip", folder, sorted(p.name for p in folder.iterdir()), "deep/er/")
    found = image_files.list_images(tmp_path / "images.zip")
    assert {key: name for key, (_, name) in found.items()} == {
        f"00000{i}": f"deep/er/00000{i}.jpg" for i in range(5)
    }


def test_what_macs_and_editors_leave_in_archives_is_no_image(tmp_path, folder):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.write(folder / "000000.jpg", "a/1.JPG")
        for name in ("__MACOSX/a/._1.jpg", "a/.2.jpg", "a/readme.txt", "a/"):
            archive.writestr(name, b"")
    assert list(image_files.list_images(tmp_path / "images.zip")) == ["1"]


def test_two_images_of_one_galaxy_are_refused(zips, folder):
    shutil.copy(folder / "000001.jpg", zips / "000001.jpg")
    with pytest.raises(UsageError, match="000001"):
        image_files.list_images(zips)


def test_a_damaged_zip_and_what_is_no_place_of_images_are_refused(zips, tmp_path):
    archive = zips / "first.zip"
    archive.write_bytes(archive.read_bytes()[:50])
    with pytest.raises(UsageError, match=r"first\.zip"):
        image_files.list_images(zips)
    for place in (tmp_path / "absent", archive):
        with pytest.raises(UsageError, match=place.name):
            image_files.list_images(place)


def test_zips_are_told_from_folders_of_images(folder, zips):
    assert image_files.holds_zips(zips)
    assert image_files.holds_zips(zips / "first.zip")
    assert not image_files.holds_zips(folder)
    assert not image_files.holds_zips(folder / "absent")


def test_images_are_read_from_zips_and_beside_them(folder, zips):
    found = image_files.list_images(zips)
    for name, data in image_files.read_images([found[f"00000{i}"] for i in range(5)]):
        assert data == (folder / name.rpartition("/")[2]).read_bytes()
