"""Training images: a folder of images or of zips, or one zip, decoded once into a file of windows.

The windows of the challenge's 61,578 images take 10 GB. They are mapped, not loaded, so that the memory of a
training does not grow with the number of galaxies.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gax_batch.analysis.evaluation.image_files import Place, read_images
from gax_batch.errors import UsageError
from gax_batch.imaging.cutout import decode_window
from gax_batch.imaging.defaults import GZ2_CROP
from gax_batch.rejects import RejectError

# The final cutout is the central 64 of these pixels at the same scale: the window is a whole 424 pixel image.
WINDOW_SIDE = 106
# The same at twice the resolution, for the teacher.
FINE_SIDE = 2 * WINDOW_SIDE
_CHUNK = 256


def write_windows(path: Path, places: Sequence[Place], side: int = WINDOW_SIDE) -> npt.NDArray[np.uint8]:
    """Decode images to a `.npy` file, unless it exists.

    Args:
        path: Path of the file. It is written under another name first, so that it is complete or absent.
        places: Folder or zip, and name in it, of each image.
        side: Side of a window in pixels. All windows show the same sky.

    Returns:
        Windows, uint8 `[N, side, side, 3]`, mapped read-only.

    Raises:
        UsageError: Images cannot be decoded.
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


def digest(places: Sequence[Place]) -> str:
    """Return a name for a file of windows: a digest of the images' names and their files' sizes and times."""
    state = hashlib.sha256()
    for place, name in places:
        status = (place / name if place.is_dir() else place).stat()
        state.update(f"{place.name}/{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return state.hexdigest()[:16]


def _decode(places: Sequence[Place], side: int) -> tuple[npt.NDArray[np.uint8], list[str]]:
    windows = np.zeros((len(places), side, side, 3), np.uint8)
    faults = []
    for row, (name, data) in enumerate(read_images(places)):
        try:
            windows[row], _ = decode_window(data, side, crop=GZ2_CROP * WINDOW_SIDE / side)
        except (RejectError, ValueError) as error:
            faults.append(f"{name}: {error}")
    return windows, faults
