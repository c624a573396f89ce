"""Small sets of labeled galaxies, and tables of labels."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from gax_batch import gz2
from gax_batch.analysis.labels import Labels
from training.data import CALIBRATE, REPORT, TRAIN, Galaxies
from training.images import FINE_SIDE, WINDOW_SIDE

# The questions of the challenge's tables of 17 columns.
FEW_QUESTIONS = (0, 1, 5, 6, 7)
FEW_COLUMNS = np.array([c for q in FEW_QUESTIONS for c in range(37)[gz2.QUESTIONS[q].columns]])


def write_table(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Write a table and return its path, as a command takes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return str(path)


def random_fractions(*shape: int, seed: int = 0) -> np.ndarray:
    """Cumulative fractions float32 `[*shape, 37]` that fit the tree."""
    raw = np.random.default_rng(seed).gamma(0.8, size=(*shape, gz2.N_ANSWERS)) + 1e-3
    return gz2.cumulative(gz2.conditional(raw)).astype(np.float32)


def partly(cumulative: np.ndarray) -> np.ndarray:
    """The same as a table of 17 columns has them: the other 20 are NaN."""
    few = np.full_like(cumulative, np.nan)
    few[:, FEW_COLUMNS] = cumulative[:, FEW_COLUMNS]
    return few


def blurred(truth: np.ndarray, noise: float, seed: int, draws: tuple[int, ...] = ()) -> np.ndarray:
    """Predictions `[*draws, N, 37]` whose logarithms err by Gaussian noise."""
    errors = np.random.default_rng(seed).normal(0, noise, (*draws, *truth.shape))
    weights = np.exp(np.log(gz2.conditional(truth.astype(np.float64)) + 1e-6) + errors)
    return gz2.cumulative(gz2.conditional(weights)).astype(np.float32)


def labels_of(cumulative: np.ndarray) -> Labels:
    """Labels that are the challenge's fractions alone."""
    ids = [str(i) for i in range(len(cumulative))]
    return Labels.of_fractions(ids, cumulative, 40, definition="debiased", numbering="GalaxyID")


def unlabeled(count: int, **known: Any) -> Galaxies:
    """Galaxies of which nothing is known but what is given."""
    fields: dict[str, Any] = {
        "keys": [f"GalaxyID:{i}" for i in range(count)],
        "cumulative": np.full((count, gz2.N_ANSWERS), np.nan, np.float32),
        "trust": np.ones(count, np.float32),
        "weighted": np.full((count, gz2.N_ANSWERS), np.nan, np.float32),
        "volunteers": np.zeros(count, np.float32),
        "classes": np.full(count, -1, np.int8),
        "strict": np.ones(count, bool),
        "largest": np.full(count, -1, np.int8),
        "sample": np.full(count, TRAIN, np.int8),
        "windows": np.zeros((count, WINDOW_SIDE, WINDOW_SIDE, 3), np.uint8),
        "fine": np.zeros((count, FINE_SIDE, FINE_SIDE, 3), np.uint8),
        "twins": {},
    }
    return Galaxies(**fields | known)


def bright_and_faint(count: int = 16) -> Galaxies:
    """Bright galaxies, which are smooth, and faint ones, which are not, with labels of every kind.

    By fours: all fractions, some of them, Hart et al. 2016's with their weighted votes, a class or none. Of
    the first eight, the last two calibrate and report in each four, if there are more than 12 galaxies.
    """
    rng = np.random.default_rng(0)
    bright = np.arange(count) % 2 == 0
    windows = rng.integers(0, 40, (count, WINDOW_SIDE, WINDOW_SIDE, 3)) + 150 * bright[:, None, None, None]
    raw = np.ones((count, gz2.N_ANSWERS), np.float32)
    raw[:, 0] = np.where(bright, 20, 1)
    truth = gz2.cumulative(gz2.conditional(raw))
    kind = np.arange(count) // 4 % 4
    cumulative = np.where((kind == 3)[:, None], np.float32(np.nan), truth)
    cumulative[kind == 1] = partly(cumulative[kind == 1])
    place = np.arange(count) % 4
    held = (count > 12) & (kind < 2)
    sample = np.where(held & (place == 2), CALIBRATE, np.where(held & (place == 3), REPORT, TRAIN))
    return unlabeled(
        count,
        cumulative=cumulative,
        trust=np.where(kind == 2, 0.57, 1).astype(np.float32),
        weighted=np.where((kind == 2)[:, None], truth, np.float32(np.nan)),
        volunteers=np.where(kind == 2, 30, 0).astype(np.float32),
        classes=np.where(kind == 3, np.where(bright, 0, 5), -1).astype(np.int8),
        largest=np.where(kind == 3, np.where(bright, 0, -1), -1).astype(np.int8),
        sample=sample.astype(np.int8),
        windows=windows.astype(np.uint8),
        fine=np.repeat(np.repeat(windows, 2, 1), 2, 2).astype(np.uint8),
    )
