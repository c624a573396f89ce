"""Choose the galaxies for which votes of volunteers give the most information.

Volunteers are asked a question only if their previous answers lead to it. Entropy and mutual information are
therefore multiplied by the fraction of volunteers who are asked. (The product with mutual information is the
expected information of one volunteer's answer about the networks: Houlsby et al. 2011, BALD.) They are summed
over questions.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch import gz2
from gax_batch.catalog.snapshots import Catalog, open_existing
from gax_batch.errors import UsageError

Doubles = npt.NDArray[np.float64]
Score = Callable[[pa.Table, Sequence[gz2.Question]], Doubles]
"""Computes the score of each galaxy, float64 `[N]`; NaN if the catalog does not have the numbers."""

CRITERIA = ("mutual_info", "entropy", "ood", "disagreement")
POOL_FACTOR = 10
"""Ratio of the best galaxies among which diverse ones are chosen to these (Zhdanov 2019, beta)."""

_CARRIED = ("galaxy_id", "ra", "dec", "gz2_class", "source_uri", "source_version", "bundle_id", "run_id")
_ORDER = [("score", "descending"), ("galaxy_id", "ascending")]


@dataclass(frozen=True, slots=True)
class ChosenGalaxies:
    """The chosen galaxies, the best first.

    Attributes:
        galaxies: `galaxy_id`, `ra`, `dec`, `gz2_class`, `source_uri`, `source_version`, `bundle_id`,
            `run_id`, `score` float64, and `<answer>_prob` of the questions.
        considered: Number of galaxies of the catalog that have a score.
        version: Number of the catalog's snapshot.
    """

    galaxies: pa.Table
    considered: int
    version: int


def select(
    catalog: str,
    *,
    by: str,
    questions: Sequence[gz2.Question] = gz2.QUESTIONS,
    count: int,
    diverse: bool = False,
) -> ChosenGalaxies:
    """Choose galaxies. Keeps only the best candidates of the catalog in memory.

    Args:
        catalog: URI of the catalog.
        by: `mutual_info` or `entropy` of the answers, nats; `ood`: the out-of-distribution score; or
            `disagreement`: the total variation distance of the blend's and the CNN-SVR's cumulative
            fractions. Of equal scores, the smaller `galaxy_id` comes first.
        questions: Questions that the score uses.
        count: Number of galaxies to choose. If the catalog has fewer, all are chosen.
        diverse: Of the best `POOL_FACTOR * count` galaxies, take the best one, then repeatedly the one
            farthest from all taken (Gonzalez 1985, k-center; cost `POOL_FACTOR * count**2` distances), by
            the Hellinger distance of their cumulative fractions.

    Raises:
        UsageError: The catalog does not exist, does not have the scores, or has an unreadable part.
        TransientError: The store kept failing.
    """
    opened = open_existing(catalog)
    kept = count * POOL_FACTOR if diverse else count
    pool, considered = _best(_scored(opened, by, questions), kept)
    if not considered:
        raise UsageError(
            f"no galaxy of {catalog} has a score by {by}; add bayesian and svr to --models and run again"
        )
    chosen = pool.take(farthest_points(_coordinates(pool, questions), count)) if diverse else pool
    return ChosenGalaxies(chosen, considered, int(opened.version or 0))


def farthest_points(points: Doubles, count: int) -> npt.NDArray[np.int64]:
    """Choose points greedily so that every point is near a chosen one: k-center, within twice the optimum.

    Args:
        points: Points, float64 `[N, D]`. The first is chosen first, and the first of equally distant ones.
        count: Number of points to choose. If N is smaller, all are chosen.

    Returns:
        Rows of the chosen points, int64, in the order of choice.
    """
    count = min(count, len(points))
    chosen = np.zeros(count, np.int64)
    nearest = np.full(len(points), np.inf)
    for step in range(1, count):
        nearest = np.minimum(nearest, np.square(points - points[chosen[step - 1]]).sum(axis=1))
        nearest[chosen[step - 1]] = -1  # the distance of its duplicates is 0, so they come before it
        chosen[step] = np.argmax(nearest)
    return chosen


def _scored(
    catalog: Catalog, by: str, questions: Sequence[gz2.Question]
) -> Iterator[tuple[pa.Table, Doubles]]:
    score = SCORES[by]
    names = [*_CARRIED, *(f"{answer}_prob" for answer in _answers(questions))]
    names += [name for name in _needed(by, questions) if name not in names]
    kept = [name for name in names if name in _CARRIED or name.endswith("_prob")]
    for rows in catalog.batches(names):
        yield rows.select(kept), score(rows, questions)


class Best:
    """The rows with the highest scores so far. Of equal scores the smaller `galaxy_id` comes first."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._rows: pa.Table | None = None

    def offer(self, rows: pa.Table, scores: Doubles) -> None:
        """Keep the rows that are better than the worst kept row. Ignores scores of NaN."""
        known = np.flatnonzero(~np.isnan(scores))
        if len(known) > self._count:
            least = np.partition(scores[known], -self._count)[-self._count]
            known = known[scores[known] >= least]
        new = rows.take(known).append_column("score", pa.array(scores[known]))
        both = new if self._rows is None else pa.concat_tables([self._rows, new])
        order = pc.sort_indices(both, _ORDER)
        self._rows = both.take(order[: self._count]).combine_chunks()

    @property
    def rows(self) -> pa.Table:
        """Return the kept rows, the best first, with an additional column `score`, float64."""
        return pa.table({}) if self._rows is None else self._rows


def _best(batches: Iterator[tuple[pa.Table, Doubles]], count: int) -> tuple[pa.Table, int]:
    """Return the best `count` rows, and the number of rows with a score."""
    best, considered = Best(count), 0
    for rows, scores in batches:
        considered += int(np.count_nonzero(~np.isnan(scores)))
        best.offer(rows, scores)
    return best.rows, considered


def _coordinates(rows: pa.Table, questions: Sequence[gz2.Question]) -> Doubles:
    return np.sqrt(np.stack([floats(rows, f"{answer}_prob") for answer in _answers(questions)], axis=1))


def _answers(questions: Sequence[gz2.Question]) -> list[str]:
    return [answer for question in questions for answer in gz2.ANSWERS[question.columns]]


def _needed(by: str, questions: Sequence[gz2.Question]) -> list[str]:
    """Return the columns from which a score is computed."""
    if by == "ood":
        return ["ood_score"]
    if by == "disagreement":
        return [f"{answer}_svr" for answer in _answers(questions)]
    leading = [f"{gz2.ANSWERS[q.parent]}_prob" for q in questions if q.parent is not None]
    return [*(f"{q.name}_{by}" for q in questions), *leading]


def _uncertain(quantity: str) -> Score:
    def score(rows: pa.Table, questions: Sequence[gz2.Question]) -> Doubles:
        total = np.zeros(len(rows))
        for question in questions:
            asked = 1.0 if question.parent is None else floats(rows, f"{gz2.ANSWERS[question.parent]}_prob")
            total += asked * floats(rows, f"{question.name}_{quantity}")
        return total

    return score


def _ood(rows: pa.Table, questions: Sequence[gz2.Question]) -> Doubles:
    return floats(rows, "ood_score")


def _disagreement(rows: pa.Table, questions: Sequence[gz2.Question]) -> Doubles:
    total = np.zeros(len(rows))
    for answer in _answers(questions):
        total += np.abs(floats(rows, f"{answer}_prob") - floats(rows, f"{answer}_svr")) / 2
    return total


SCORES: dict[str, Score] = {
    "mutual_info": _uncertain("mutual_info"),
    "entropy": _uncertain("entropy"),
    "ood": _ood,
    "disagreement": _disagreement,
}


def floats(rows: pa.Table, name: str) -> Doubles:
    """Return a column of numbers as float64; null becomes NaN."""
    values: Doubles = pc.fill_null(pc.cast(rows[name], pa.float64()), np.nan).to_numpy()
    return values
