"""The training set: images and labels of one or more tables, in five folds.

A fold is a hash of the galaxy's id: it depends on neither the order nor the number of galaxies, so a
galaxy never moves from one fold to another when more are added.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gax_batch.errors import UsageError
from gax_batch.imaging import IMAGE_SIDE
from gax_batch.labels import CHALLENGE_VOTES, EXAMPLES, Labels, read_labels, votes
from gax_batch.simulate.survey import TRUTH_COLUMNS, simulate_table
from training.images import WINDOW_SIDE, digest, list_images, write_windows

FOLDS = 5
TABLES = ("hart16_votes.csv", "class5.csv", "training_solutions_rev1.csv")
IMAGES = ("images", "images_training_rev1", "images.zip", "images_training_rev1.zip")


@dataclass(frozen=True, slots=True)
class Galaxies:
    """Labelled galaxies: a row of windows for every row of labels."""

    labels: Labels
    windows: npt.NDArray[np.uint8]
    """`[N, 106, 106, 3]`: the cutouts with a rim for augmentation; may be a mapped file."""

    def __len__(self) -> int:
        return len(self.labels)

    def cutouts(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
        """`[len(rows), 64, 64, 3]`, the windows' centers: the pixels of `gax_batch.imaging.decode_cutout`."""
        margin = (WINDOW_SIDE - IMAGE_SIDE) // 2
        inner = slice(margin, margin + IMAGE_SIDE)
        return np.ascontiguousarray(self.windows[rows, inner, inner])

    @property
    def folds(self) -> npt.NDArray[np.int8]:
        """int8 `[N]`: which fold each galaxy is in."""
        return np.array([fold_of(name) for name in self.labels.ids], np.int8)

    def digest(self) -> str:
        """Sha256 over ids and labels."""
        state = hashlib.sha256("\n".join(self.labels.ids).encode())
        for values in (self.labels.fractions, self.labels.reached):
            state.update(np.ascontiguousarray(values, "<f4").tobytes())
        state.update(self.labels.classes.tobytes())
        return state.hexdigest()


def fold_of(galaxy_id: str) -> int:
    """0 to 4."""
    return int.from_bytes(hashlib.sha256(galaxy_id.encode()).digest()[:8], "big") % FOLDS


def find_tables(folder: Path) -> list[tuple[Path, Path]]:
    """Each table of labels in a folder and its subfolders, with the folder or zip of its images.

    Raises:
        UsageError: there is none, or one lacks its images.
    """
    pairs = []
    for place in (folder, *sorted(p for p in folder.glob("*") if p.is_dir())):
        for table in (place / name for name in TABLES):
            if table.is_file():
                images = next((place / name for name in IMAGES if (place / name).exists()), None)
                if images is None:
                    raise UsageError(f"{table} has no images beside it: expected one of {', '.join(IMAGES)}")
                pairs.append((table, images))
    if not pairs:
        raise UsageError(
            f"no labels in {folder} or its subfolders: expected {', '.join(TABLES)}, with images beside it"
        )
    return pairs


def load(folder: Path, cache: Path, say: Callable[[str], None] = print) -> Galaxies:
    """Read all labels below a folder, and their images.

    Galaxies that have a label but no image, or an image but no label, are left out, with a line that
    counts them. A galaxy of two tables is refused: its folds would leak.

    Args:
        folder: see `find_tables`.
        cache: folder for the decoded windows.
        say: called with each line.

    Raises:
        UsageError: bad labels (see `gax_batch.labels`), images that cannot be decoded, or too few galaxies.
    """
    parts, places = [], []
    for table, images in find_tables(folder):
        labels, found = read_labels(str(table)), list_images(images)
        used = (labels.voted | (labels.classes >= 0)) & np.array([name in found for name in labels.ids])
        _tell(table, labels, found, used, say)
        part = labels.take(np.flatnonzero(used))
        parts.append(part)
        places += [(images, found[name]) for name in part.ids]
    labels = Labels.concatenate(parts)
    shared = len(labels.ids) - len(set(labels.ids))
    if shared:
        raise UsageError(f"{shared} galaxies are in more than one table; remove them from all but one")
    if min(np.bincount(Galaxies(labels, np.empty(0, np.uint8)).folds, minlength=FOLDS)) < 2:
        raise UsageError(f"{len(labels)} labelled galaxies with images are too few for {FOLDS} folds")
    cache.mkdir(parents=True, exist_ok=True)
    windows = write_windows(cache / f"windows-{digest(places)}.npy", places)
    return Galaxies(labels, windows)


def simulated(count: int, seed: int) -> Galaxies:
    """Simulated galaxies with the votes of 40 volunteers' mean, their rims mirrored."""
    table = simulate_table(seed, 0, count)
    pixels = np.frombuffer(b"".join(table["image"].to_pylist()), np.uint8)
    cutouts = pixels.reshape(count, IMAGE_SIDE, IMAGE_SIDE, 3)
    truth = np.stack([table[name].to_numpy() for name in TRUTH_COLUMNS], axis=1).astype(np.float64)
    margin = (WINDOW_SIDE - IMAGE_SIDE) // 2
    windows = np.pad(cutouts, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="reflect")
    fractions, reached = votes(truth, np.full(count, CHALLENGE_VOTES))
    ids = table["galaxy_id"].to_pylist()
    return Galaxies(Labels(ids, fractions, reached, np.full(count, -1, np.int8)), windows)


def _tell(
    table: Path,
    labels: Labels,
    found: dict[str, str],
    used: npt.NDArray[np.bool_],
    say: Callable[[str], None],
) -> None:
    say(f"{table.name}: {int(used.sum()):,} galaxies with labels and an image")
    known = set(labels.ids)
    told = zip(labels.ids, labels.voted | (labels.classes >= 0), strict=True)
    silent = {name for name, said in told if not said}
    for kind, names in (
        (
            "labels without an image",
            [n for n in labels.ids if n not in silent and n not in found],
        ),
        ("images without a label", [n for n in found if n not in known]),
        ("rows that say nothing", list(silent)),
    ):
        if names:
            say(f"  left out: {len(names):,} {kind} ({', '.join(sorted(names)[:EXAMPLES])}, ...)")
