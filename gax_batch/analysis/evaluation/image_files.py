"""Labeled images on a local disk: a folder of images or of zips of images, or one zip."""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from gax_batch.errors import UsageError

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
Place = tuple[Path, str]
"""Folder or zip of an image, and its name in it."""


def list_images(place: Path) -> dict[str, Place]:
    """Return the place of each image of a folder or a zip by galaxy id: its folder or zip, and its name.

    A galaxy's id is the stem of the file's name. A folder may also contain zips of images.

    Raises:
        UsageError: The folder or zip does not exist, or two images have the same id.
    """
    if place.is_dir():
        names = [(place, p.relative_to(place).as_posix()) for p in sorted(place.rglob("*"))]
        for archive in sorted(place.rglob("*.zip")):
            names += _members(archive)
    elif zipfile.is_zipfile(place):
        names = _members(place)
    else:
        raise UsageError(f"{place} is neither a folder nor a zip of images")
    images: dict[str, Place] = {}
    for where, name in names:
        path = PurePosixPath(name)
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and "__MACOSX" not in path.parts:
            if path.stem in images:
                raise UsageError(f"{place} has two images of {path.stem}: {images[path.stem][1]} and {name}")
            images[path.stem] = where, name
    return images


def holds_zips(place: Path) -> bool:
    """Return whether a path is a zip or a folder with zips below it."""
    return next(place.rglob("*.zip"), None) is not None if place.is_dir() else zipfile.is_zipfile(place)


def _members(archive: Path) -> list[Place]:
    try:
        with zipfile.ZipFile(archive) as opened:
            return [(archive, name) for name in sorted(opened.namelist())]
    except zipfile.BadZipFile as error:
        raise UsageError(f"{archive} cannot be read: {error}; copy it again") from None


def read_images(places: Sequence[Place]) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each image."""
    archives: dict[Path, Any] = {}
    try:
        for place, name in places:
            if place.is_dir():
                yield name, (place / name).read_bytes()
            else:
                if place not in archives:
                    archives[place] = zipfile.ZipFile(place)
                yield name, archives[place].read(name)
    finally:
        for archive in archives.values():
            archive.close()
