"""Collect the numbers and galaxies of the report in one pass over a snapshot.

The memory does not grow with the survey: a few parts are in memory at a time.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch import gz2
from gax_batch.analysis import selection
from gax_batch.analysis.selection import Best, floats
from gax_batch.catalog.schema import Flag
from gax_batch.imaging.wcs import healpix_cells
from gax_batch.viewer.sky_map import WHOLE_SKY_ORDER

Doubles = npt.NDArray[np.float64]

FRACTION_BINS = 25
SKY_CELLS = 12 * 4**WHOLE_SKY_ORDER
SHOWN = 12
SHOWN_OF_A_CLASS = 6
CLASSES = {
    "t07_rounded_a16_completely_round": "round ellipticals",
    "t07_rounded_a17_in_between": "ellipticals in between",
    "t07_rounded_a18_cigar_shaped": "cigars",
    "t02_edgeon_a04_yes": "edge-on disks",
    "t04_spiral_a08_spiral": "spirals",
    "t03_bar_a06_bar": "barred disks",
    "t08_odd_feature_a24_merger": "mergers",
    "t01_smooth_or_features_a03_star_or_artifact": "stars and artifacts",
}
"""Answers of which the galaxies with the largest fractions are shown."""

QUANTITIES = ("prob", "lo", "hi")
# Scores of the galleries. The distance of the blend from the CNN-SVR alone increases with that of the
# Bayesian CNN from the CNN-SVR.
SCORES: dict[str, selection.Score] = {
    "far": selection.SCORES["ood"],
    "disagree": selection.SCORES["disagreement"],
}
_TEXT = ("galaxy_id", "gz2_class", "source_uri", "source_version", "run_id", "bundle_id")
COLUMNS = (
    *_TEXT,
    "ra",
    "dec",
    "ood_score",
    "flags",
    *(f"{answer}_{quantity}" for quantity in (*QUANTITIES, "svr") for answer in gz2.ANSWERS),
)


@dataclass(slots=True)
class SnapshotSummary:
    """The numbers and galaxies of one snapshot.

    Attributes:
        galaxies: Number of galaxies.
        placed: Number of galaxies with a position.
        far: Number of galaxies that are flagged as out of distribution.
        without_interval: Number of galaxies without intervals.
        classes: Number of galaxies by the first letters of their class.
        bundles: Number of galaxies by bundle.
        histogram: Number of galaxies by their cumulative fraction of each answer, int64
            `[37, FRACTION_BINS]`.
        totals: Sums of the cumulative fractions, float64 `[37]`.
        sky: Number of galaxies, and sum of their uncertainty, in each HEALPix cell, float64
            `[2, SKY_CELLS]`.
        galleries: Best galaxies of each gallery by its name.
        named: Galaxies whose ids were requested.
    """

    galaxies: int = 0
    placed: int = 0
    far: int = 0
    without_interval: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    bundles: Counter[str] = field(default_factory=Counter)
    histogram: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.zeros((gz2.N_ANSWERS, FRACTION_BINS), np.int64)
    )
    totals: Doubles = field(default_factory=lambda: np.zeros(gz2.N_ANSWERS))
    sky: Doubles = field(default_factory=lambda: np.zeros((2, SKY_CELLS)))
    galleries: dict[str, Best] = field(
        default_factory=lambda: {
            **{answer: Best(SHOWN_OF_A_CLASS) for answer in CLASSES},
            **{name: Best(SHOWN) for name in ("uncertain", *SCORES)},
        }
    )
    named: list[pa.Table] = field(default_factory=list)


def gather(batches: Iterable[pa.Table], wanted: Collection[str] = ()) -> SnapshotSummary:
    """Read every galaxy once.

    Args:
        batches: Tables of `COLUMNS`.
        wanted: Ids of galaxies that are kept regardless of their scores.
    """
    found = SnapshotSummary()
    ids = pa.array(sorted(wanted), pa.string())
    for rows in batches:
        if len(rows):
            _count(found, rows)
            values = {quantity: _answers(rows, quantity) for quantity in QUANTITIES}
            _distribute(found, values["prob"])
            _place(found, rows, uncertainty(values))
            _choose(found, rows, values)
            if wanted:
                found.named.append(rows.filter(pc.is_in(rows["galaxy_id"], ids)))
    return found


def uncertainty(values: dict[str, Doubles]) -> Doubles:
    """Return the mean width of the 90 % intervals of the 37 cumulative fractions, float64 `[N]`."""
    width: Doubles = (values["hi"] - values["lo"]).mean(axis=1)
    return width


def _count(found: SnapshotSummary, rows: pa.Table) -> None:
    found.galaxies += len(rows)
    found.placed += int(pc.sum(pc.and_(pc.is_valid(rows["ra"]), pc.is_valid(rows["dec"]))).as_py())
    far = pc.not_equal(pc.bit_wise_and(rows["flags"], Flag.OUT_OF_DISTRIBUTION.value), 0)
    found.far += int(pc.sum(far).as_py())
    found.without_interval += rows[f"{gz2.ANSWERS[0]}_lo"].null_count
    for counter, column in (
        (found.classes, pc.utf8_slice_codeunits(rows["gz2_class"], 0, 2)),
        (found.bundles, rows["bundle_id"]),
    ):
        counts = column.value_counts().to_pylist()
        counter.update({row["values"] or "none": row["counts"] for row in counts})


def _distribute(found: SnapshotSummary, prob: Doubles) -> None:
    whole = prob[~np.isnan(prob).any(axis=1)]
    bins = np.clip((whole * FRACTION_BINS).astype(np.int64), 0, FRACTION_BINS - 1)
    flat = (bins + np.arange(gz2.N_ANSWERS) * FRACTION_BINS).ravel()
    found.histogram += np.bincount(flat, minlength=found.histogram.size).reshape(found.histogram.shape)
    found.totals += whole.sum(axis=0)


def _place(found: SnapshotSummary, rows: pa.Table, width: Doubles) -> None:
    ra, dec = floats(rows, "ra"), floats(rows, "dec")
    cells = healpix_cells(ra, dec, WHOLE_SKY_ORDER)
    there = cells >= 0
    found.sky[0] += np.bincount(cells[there], minlength=SKY_CELLS)
    found.sky[1] += np.bincount(cells[there], width[there], SKY_CELLS)


def _choose(found: SnapshotSummary, rows: pa.Table, values: dict[str, Doubles]) -> None:
    for answer in CLASSES:
        found.galleries[answer].offer(rows, values["prob"][:, gz2.ANSWERS.index(answer)])
    found.galleries["uncertain"].offer(rows, uncertainty(values))
    for name, score in SCORES.items():
        found.galleries[name].offer(rows, score(rows, gz2.QUESTIONS))


def _answers(rows: pa.Table, quantity: str) -> Doubles:
    return np.stack([floats(rows, f"{answer}_{quantity}") for answer in gz2.ANSWERS], axis=1)
