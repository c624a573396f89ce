"""Training images: a folder of images or of zips, or one zip, decoded once into a file of windows.

The windows of the challenge's 61,578 images take 10 GB; they are mapped, not loaded, so that the memory
of a training does not grow with the number of galaxies.
"""

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch.errors import UsageError
from gax_batch.imaging import GZ2_CROP, decode_window
from gax_batch.rejects import RejectError

# The final cutout is the central 64 of these pixels at the same scale: a whole 424 pixel image.
WINDOW_SIDE = 106
# The same at twice the resolution, for the teacher.
FINE_SIDE = 2 * WINDOW_SIDE
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
_CHUNK = 256


def list_images(place: Path) -> dict[str, tuple[Path, str]]:
    """Return where each image of a folder or a zip is: its folder or zip, and its name within, by galaxy id.

    A galaxy's id is the stem of the file's name. A folder may hold zips of images too.

    Raises:
        UsageError: there is no such folder or zip, or two images have one id.
    """
    if place.is_dir():
        names = [(place, p.relative_to(place).as_posix()) for p in sorted(place.rglob("*"))]
        for archive in sorted(place.rglob("*.zip")):
            names += _members(archive)
    elif zipfile.is_zipfile(place):
        names = _members(place)
    else:
        raise UsageError(f"{place} is neither a folder nor a zip of images")
    images: dict[str, tuple[Path, str]] = {}
    for where, name in names:
        path = PurePosixPath(name)
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and "__MACOSX" not in path.parts:
            if path.stem in images:
                raise UsageError(
                    f"{place} holds two images of {path.stem}: {images[path.stem][1]} and {name}"
                )
            images[path.stem] = where, name
    return images


def _members(archive: Path) -> list[tuple[Path, str]]:
    try:
        with zipfile.ZipFile(archive) as opened:
            return [(archive, name) for name in sorted(opened.namelist())]
    except zipfile.BadZipFile as error:
        raise UsageError(f"{archive} cannot be read: {error}; copy it again") from None


def write_windows(
    path: Path, places: Sequence[tuple[Path, str]], side: int = WINDOW_SIDE
) -> npt.NDArray[np.uint8]:
    """Decode images into a `.npy` file, unless it is there already.

    Args:
        path: of the file; written beside it first, so that it is whole or absent.
        places: the folder or zip, and the name in it, of each image.
        side: pixels of a window; all windows show the same sky.

    Returns:
        `[N, side, side, 3]`, mapped read-only.

    Raises:
        UsageError: images cannot be decoded.
    """
    if not path.exists():
        unfinished = path.with_suffix(".partial")
        shape = (len(places), side, side, 3)
        windows = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)
        faults: list[str] = []
        chunks = [places[start : start + _CHUNK] for start in range(0, len(places), _CHUNK)]
        with ProcessPoolExecutor() as pool:
            for index, (block, wrong) in enumerate(pool.map(partial(_decode, side=side), chunks)):
                windows[index * _CHUNK : index * _CHUNK + len(block)] = block
                faults += wrong
        windows.flush()
        if faults:
            unfinished.unlink()
            raise UsageError(f"{len(faults)} images cannot be used: {'; '.join(faults[:3])}")
        unfinished.rename(path)
    return np.asarray(np.load(path, mmap_mode="r"))


def digest(places: Sequence[tuple[Path, str]]) -> str:
    """What a file of windows is named after: the images' names, and the sizes and times of their files."""
    state = hashlib.sha256()
    for place, name in places:
        status = (place / name if place.is_dir() else place).stat()
        state.update(f"{place.name}/{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return state.hexdigest()[:16]


def _decode(places: Sequence[tuple[Path, str]], side: int) -> tuple[npt.NDArray[np.uint8], list[str]]:
    windows = np.zeros((len(places), side, side, 3), np.uint8)
    faults = []
    for row, (name, data) in enumerate(_read(places)):
        try:
            windows[row], _ = decode_window(data, side, crop=GZ2_CROP * WINDOW_SIDE / side)
        except (RejectError, ValueError) as error:
            faults.append(f"{name}: {error}")
    return windows, faults


def _read(places: Sequence[tuple[Path, str]]) -> Iterator[tuple[str, bytes]]:
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
