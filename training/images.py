"""Training images: a folder or a zip of them, decoded once into a file of windows.

The windows of the challenge's 61,578 images take 2 GB; they are mapped, not loaded, so that the memory
of a training does not grow with the number of galaxies.
"""

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch.errors import UsageError
from gax_batch.imaging import decode_window
from gax_batch.rejects import RejectError

# The final cutout is the central 64 of these pixels at the same scale: a whole 424 pixel image.
WINDOW_SIDE = 106
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
_CHUNK = 256


def list_images(place: Path) -> dict[str, str]:
    """The images of a folder or a zip: name within it by galaxy id (the file's stem).

    Raises:
        UsageError: there is no such folder or zip, or two images have one id.
    """
    if place.is_dir():
        names = [p.relative_to(place).as_posix() for p in sorted(place.rglob("*"))]
    elif zipfile.is_zipfile(place):
        with zipfile.ZipFile(place) as archive:
            names = sorted(archive.namelist())
    else:
        raise UsageError(f"{place} is neither a folder nor a zip of images")
    images: dict[str, str] = {}
    for name in names:
        path = PurePosixPath(name)
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and "__MACOSX" not in path.parts:
            if path.stem in images:
                raise UsageError(f"{place} holds two images of {path.stem}: {images[path.stem]} and {name}")
            images[path.stem] = name
    return images


def write_windows(path: Path, places: Sequence[tuple[Path, str]]) -> npt.NDArray[np.uint8]:
    """Decode images into a `.npy` file, unless it is there already.

    Args:
        path: of the file; written beside it first, so that it is whole or absent.
        places: the folder or zip, and the name in it, of each image.

    Returns:
        `[N, 106, 106, 3]`, mapped read-only.

    Raises:
        UsageError: images cannot be decoded.
    """
    if not path.exists():
        partial = path.with_suffix(".partial")
        shape = (len(places), WINDOW_SIDE, WINDOW_SIDE, 3)
        windows = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        faults: list[str] = []
        chunks = [places[start : start + _CHUNK] for start in range(0, len(places), _CHUNK)]
        with ProcessPoolExecutor() as pool:
            for index, (block, wrong) in enumerate(pool.map(_decode, chunks)):
                windows[index * _CHUNK : index * _CHUNK + len(block)] = block
                faults += wrong
        windows.flush()
        if faults:
            partial.unlink()
            raise UsageError(f"{len(faults)} images cannot be used: {'; '.join(faults[:3])}")
        partial.rename(path)
    return np.asarray(np.load(path, mmap_mode="r"))


def digest(places: Sequence[tuple[Path, str]]) -> str:
    """What a file of windows is named after: the images' names, and the sizes and times of their files."""
    state = hashlib.sha256()
    for place, name in places:
        status = (place / name if place.is_dir() else place).stat()
        state.update(f"{place.name}/{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return state.hexdigest()[:16]


def _decode(places: Sequence[tuple[Path, str]]) -> tuple[npt.NDArray[np.uint8], list[str]]:
    windows = np.zeros((len(places), WINDOW_SIDE, WINDOW_SIDE, 3), np.uint8)
    faults = []
    for row, (name, data) in enumerate(_read(places)):
        try:
            windows[row], _ = decode_window(data, WINDOW_SIDE)
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
