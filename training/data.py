"""The Galaxy Zoo 2 training set: pixels, votes and an honest split.

Votes are the weighted fractions of Hart et al. 2016 (MNRAS 461, 3663) for the questions of Willett et
al. 2013 (MNRAS 435, 2835). The split is a hash of the asset id: it depends on neither the order nor
the number of galaxies, so a galaxy never moves from one side to the other when more are added.
"""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gax_batch import tree
from gax_batch.imaging import IMAGE_SIDE, decode_window

# The final cutout is the central 64 of these pixels at the same scale: a whole 424 pixel image.
WINDOW_SIDE = 106
SPLITS = ("train", "calibration", "test")


@dataclass(frozen=True, slots=True)
class Galaxies:
    """Labelled galaxies, row by row in the order of their ids."""

    ids: list[str]
    windows: npt.NDArray[np.uint8]
    """`[N, 106, 106, 3]`: the cutouts with a rim for augmentation."""
    fractions: npt.NDArray[np.float32]
    """`[N, 37]` conditional vote fractions, each question's answers summing to 1."""
    reached: npt.NDArray[np.float32]
    """`[N, 11]` number of votes that reached each question."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def cumulative(self) -> npt.NDArray[np.float32]:
        """`[N, 37]` cumulative vote fractions: what the models predict."""
        return np.asarray(tree.cumulative(self.fractions), np.float32)

    @property
    def cutouts(self) -> npt.NDArray[np.uint8]:
        """`[N, 64, 64, 3]`, the windows' centers: the very pixels of `gax_batch.imaging.decode_cutout`."""
        margin = (WINDOW_SIDE - IMAGE_SIDE) // 2
        inner = slice(margin, margin + IMAGE_SIDE)
        return np.ascontiguousarray(self.windows[:, inner, inner])

    def subset(self, split: str) -> "Galaxies":
        """The galaxies of one split."""
        keep = [i for i, name in enumerate(self.ids) if split_of(name) == split]
        return Galaxies(
            [self.ids[i] for i in keep], self.windows[keep], self.fractions[keep], self.reached[keep]
        )

    def digest(self) -> str:
        """Sha256 over ids and labels."""
        digest = hashlib.sha256("\n".join(self.ids).encode())
        for labels in (self.fractions, self.reached):
            digest.update(np.ascontiguousarray(labels, "<f4").tobytes())
        return digest.hexdigest()


def split_of(galaxy_id: str) -> str:
    """`train` (4 in 6), `calibration` or `test` (1 in 6 each)."""
    remainder = int.from_bytes(hashlib.sha256(galaxy_id.encode()).digest()[:8], "big") % 6
    return {0: "test", 1: "calibration"}.get(remainder, "train")


def votes(
    weighted: npt.NDArray[np.float64], classifications: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Normalized conditional fractions and the votes behind them.

    Args:
        weighted: `[N, 37]` weighted fractions as published.
        classifications: `[N]` number of people who classified the galaxy.

    Returns:
        Fractions `[N, 37]` (equal ones where nobody answered) and votes that reached each question
        `[N, 11]` (zero where nobody answered).
    """
    fractions = tree.conditional(weighted)
    cumulative = tree.cumulative(fractions)
    reached = np.empty((len(weighted), tree.N_QUESTIONS))
    for index, question in enumerate(tree.QUESTIONS):
        share = 1.0 if question.parent is None else cumulative[:, question.parent]
        answered = weighted[:, question.columns].sum(axis=1) > 0
        reached[:, index] = classifications * share * answered
    return fractions.astype(np.float32), reached.astype(np.float32)


def load(folder: Path) -> Galaxies:
    """Read `hart16_votes.csv` and `images/<asset_id>.jpg` below `folder`, sorted by asset id."""
    with (folder / "hart16_votes.csv").open(newline="") as stream:
        rows = sorted(csv.DictReader(stream), key=lambda row: int(row["asset_id"]))
    weighted = np.array([[float(row[c] or 0) for c in tree.HART16_COLUMNS] for row in rows])
    fractions, reached = votes(weighted, np.array([float(row["total_classifications"]) for row in rows]))
    ids = [row["asset_id"] for row in rows]
    windows = np.stack([_window(folder / "images" / f"{name}.jpg") for name in ids])
    return Galaxies(ids, windows, fractions, reached)


def _window(path: Path) -> npt.NDArray[np.uint8]:
    window, _ = decode_window(path.read_bytes(), WINDOW_SIDE)
    return window
