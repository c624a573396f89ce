"""What the page shows of the galaxies: aggregates and the best of each gallery, in one pass over a snapshot.

Memory is that of some parts, whatever the size of the survey.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch import tree
from gax_batch.catalog.schema import Flag

Doubles = npt.NDArray[np.float64]
Score = Callable[[dict[str, Doubles]], Doubles]

FRACTION_BINS = 25
SKY_SHAPE = (60, 120)
"""Cells in sin(dec) and in ra, so that all are of one area: 41,253 / 7,200 = 5.7 square degrees."""
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
"""Answers whose surest galaxies are shown."""

QUANTITIES = ("prob", "lo", "hi", "svr")
_TEXT = ("galaxy_id", "gz2_class", "source_uri", "source_version", "run_id", "bundle_id")
COLUMNS = (
    *_TEXT,
    "ra",
    "dec",
    "ood_score",
    "flags",
    *(f"{answer}_{quantity}" for quantity in QUANTITIES for answer in tree.ANSWERS),
)


class Best:
    """The rows of the largest scores so far; of equal ones the smaller `galaxy_id` comes first."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._rows: pa.Table | None = None

    def offer(self, rows: pa.Table, scores: Doubles) -> None:
        """Take what is better than the worst that is kept; NaN is no score."""
        known = np.flatnonzero(~np.isnan(scores))
        if len(known) > self._count:
            least = np.partition(scores[known], -self._count)[-self._count]
            known = known[scores[known] >= least]
        new = rows.take(known).append_column("score", pa.array(scores[known]))
        both = new if self._rows is None else pa.concat_tables([self._rows, new])
        order = pc.sort_indices(both, [("score", "descending"), ("galaxy_id", "ascending")])
        self._rows = both.take(order[: self._count]).combine_chunks()

    @property
    def rows(self) -> pa.Table:
        """`COLUMNS` and `score`, the best first."""
        return pa.table({}) if self._rows is None else self._rows


@dataclass(slots=True)
class Gathered:
    """What one pass found.

    Attributes:
        galaxies: How many there are.
        placed: How many have a position.
        far: How many are flagged as out of distribution.
        without_interval: How many have no intervals.
        classes: Galaxies by the first letters of their class.
        bundles: Galaxies by bundle.
        histogram: `[37, FRACTION_BINS]` galaxies by their cumulative fraction of each answer.
        totals: `[37]` sums of the cumulative fractions.
        sky: `[2, *SKY_SHAPE]`: galaxies, and the sum of their uncertainty, by cell of sin(dec) and ra.
        galleries: By name.
        named: Galaxies that were asked for by id.
    """

    galaxies: int = 0
    placed: int = 0
    far: int = 0
    without_interval: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    bundles: Counter[str] = field(default_factory=Counter)
    histogram: npt.NDArray[np.int64] = field(
        default_factory=lambda: np.zeros((tree.N_ANSWERS, FRACTION_BINS), np.int64)
    )
    totals: Doubles = field(default_factory=lambda: np.zeros(tree.N_ANSWERS))
    sky: Doubles = field(default_factory=lambda: np.zeros((2, *SKY_SHAPE)))
    galleries: dict[str, Best] = field(
        default_factory=lambda: {
            **{answer: Best(SHOWN_OF_A_CLASS) for answer in CLASSES},
            **{name: Best(SHOWN) for name in SCORES},
        }
    )
    named: list[pa.Table] = field(default_factory=list)


def gather(batches: Iterable[pa.Table], wanted: Collection[str] = ()) -> Gathered:
    """Look at every galaxy once.

    Args:
        batches: Tables of `COLUMNS`.
        wanted: Ids of galaxies that are kept whatever their scores.
    """
    found = Gathered()
    ids = pa.array(sorted(wanted), pa.string())
    for rows in batches:
        if len(rows):
            _count(found, rows)
            values = {quantity: _answers(rows, quantity) for quantity in QUANTITIES}
            values["ood"] = _floats(rows, "ood_score")[:, None]
            _distribute(found, values["prob"])
            _place(found, rows, uncertainty(values))
            _choose(found, rows, values)
            if wanted:
                found.named.append(rows.filter(pc.is_in(rows["galaxy_id"], ids)))
    return found


def uncertainty(values: dict[str, Doubles]) -> Doubles:
    """`[N]`: mean width of the 90 % intervals of the 37 cumulative fractions."""
    width: Doubles = (values["hi"] - values["lo"]).mean(axis=1)
    return width


def disagreement(values: dict[str, Doubles]) -> Doubles:
    """`[N]`: total variation distance of blend and CNN-SVR, summed over the questions.

    The blend is of the Bayesian CNN and the CNN-SVR, so that it is the larger, the farther these are apart.
    """
    distance: Doubles = np.abs(values["prob"] - values["svr"]).sum(axis=1) / 2
    return distance


SCORES: dict[str, Score] = {
    "uncertain": uncertainty,
    "far": lambda values: values["ood"][:, 0],
    "disagree": disagreement,
}


def _count(found: Gathered, rows: pa.Table) -> None:
    found.galaxies += len(rows)
    found.placed += int(pc.sum(pc.and_(pc.is_valid(rows["ra"]), pc.is_valid(rows["dec"]))).as_py())
    far = pc.not_equal(pc.bit_wise_and(rows["flags"], Flag.OUT_OF_DISTRIBUTION.value), 0)
    found.far += int(pc.sum(far).as_py())
    found.without_interval += rows[f"{tree.ANSWERS[0]}_lo"].null_count
    for counter, column in (
        (found.classes, pc.utf8_slice_codeunits(rows["gz2_class"], 0, 2)),
        (found.bundles, rows["bundle_id"]),
    ):
        counts = column.value_counts().to_pylist()
        counter.update({row["values"] or "none": row["counts"] for row in counts})


def _distribute(found: Gathered, prob: Doubles) -> None:
    whole = prob[~np.isnan(prob).any(axis=1)]
    bins = np.clip((whole * FRACTION_BINS).astype(np.int64), 0, FRACTION_BINS - 1)
    flat = (bins + np.arange(tree.N_ANSWERS) * FRACTION_BINS).ravel()
    found.histogram += np.bincount(flat, minlength=found.histogram.size).reshape(found.histogram.shape)
    found.totals += whole.sum(axis=0)


def _place(found: Gathered, rows: pa.Table, width: Doubles) -> None:
    ra, dec = _floats(rows, "ra"), _floats(rows, "dec")
    there = ~(np.isnan(ra) | np.isnan(dec))
    height, length = SKY_SHAPE
    y = np.clip((np.sin(np.radians(dec[there])) + 1) / 2 * height, 0, height - 1).astype(np.int64)
    x = np.clip(ra[there] % 360 / 360 * length, 0, length - 1).astype(np.int64)
    np.add.at(found.sky[0], (y, x), 1)
    np.add.at(found.sky[1], (y, x), width[there])


def _choose(found: Gathered, rows: pa.Table, values: dict[str, Doubles]) -> None:
    for answer in CLASSES:
        found.galleries[answer].offer(rows, values["prob"][:, tree.ANSWERS.index(answer)])
    for name, score in SCORES.items():
        found.galleries[name].offer(rows, score(values))


def _answers(rows: pa.Table, quantity: str) -> Doubles:
    return np.stack([_floats(rows, f"{answer}_{quantity}") for answer in tree.ANSWERS], axis=1)


def _floats(rows: pa.Table, name: str) -> Doubles:
    values: Doubles = pc.fill_null(pc.cast(rows[name], pa.float64()), np.nan).to_numpy()
    return values
