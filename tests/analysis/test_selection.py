"""Selection: the best by each criterion, deterministic, in bounded memory, diverse where asked."""

import numpy as np
import pyarrow as pa
import pytest

from gax_batch import gz2
from gax_batch.analysis import selection
from gax_batch.analysis.selection import farthest_points, select
from gax_batch.catalog.parts import write_unit
from gax_batch.catalog.schema import REJECTS, galaxies_table
from gax_batch.catalog.snapshots import Catalog
from gax_batch.errors import UsageError
from gax_batch.gz2 import ANSWERS, QUESTION_NAMES, QUESTIONS
from gax_batch.sources.base import CUTOUT_SCHEMA

COUNT = 300
SPIRAL = QUESTIONS[3]


def columns_of(count, seed=0):
    rng = np.random.default_rng(seed)
    prob, svr = (
        gz2.cumulative(gz2.conditional(rng.gamma(0.7, size=(count, 37)) + 1e-3)).astype(np.float32)
        for _ in range(2)
    )
    columns = {f"{a}_prob": prob[:, i] for i, a in enumerate(ANSWERS)}
    columns |= {f"{a}_svr": svr[:, i] for i, a in enumerate(ANSWERS)}
    columns |= {f"{a}_{q}": prob[:, i] for i, a in enumerate(ANSWERS) for q in ("std", "lo", "hi")}
    for question in QUESTION_NAMES:
        columns[f"{question}_entropy"] = rng.random(count).astype(np.float32)
        columns[f"{question}_mutual_info"] = rng.random(count).astype(np.float32)
    # Scores with many ties, and some missing.
    score = np.round(rng.random(count), 1).astype(np.float32)
    score[::17] = np.nan
    columns["gz2_class_margin"] = rng.random(count).astype(np.float32)
    return columns | {"gz2_class": ["Er"] * count, "ood_score": score, "out_of_distribution": score > 2}


def cataloged(root, columns, sizes):
    """A catalog of made-up galaxies in units of these sizes."""
    parts, start = [], 0
    for number, size in enumerate(sizes):
        ids = [f"g{i:05d}" for i in range(start, start + size)]
        cutouts = pa.table(
            {
                "galaxy_id": ids,
                "source_uri": [f"file:///survey/{name}.jpg" for name in ids],
                "source_version": ["1"] * size,
                "flags": [0] * size,
            }
            | {n: [None] * size for n in ("ra", "dec", "stage", "reason", "detail", "attempts", "cutout")}
        ).select(CUTOUT_SCHEMA.names)
        cutouts = cutouts.cast(CUTOUT_SCHEMA)
        mine = {name: values[start : start + size] for name, values in columns.items()}
        labels = {"unit_id": f"{number:016x}", "bundle_id": "b", "run_id": "r"}
        rows = galaxies_table(cutouts, mine, **labels)
        unit = {"unit_id": labels["unit_id"], "fingerprint": "f", "planned": size}
        parts.append(write_unit(root, "s", rows, REJECTS.empty_table(), **unit))
        start += size
    Catalog(root).commit(parts, run_id="r", metadata={})
    return root


@pytest.fixture(scope="module")
def columns():
    return columns_of(COUNT)


@pytest.fixture
def catalog(columns, tmp_path):
    return cataloged(str(tmp_path / "catalog"), columns, [100, 150, 50])


def ids(chosen):
    return chosen.galaxies["galaxy_id"].to_pylist()


def expected_scores(columns, by, questions):
    reach = {
        q.name: 1.0 if q.parent is None else columns[f"{ANSWERS[q.parent]}_prob"].astype(float)
        for q in questions
    }
    if by == "ood":
        return columns["ood_score"].astype(float)
    if by == "disagreement":
        answers = [a for q in questions for a in ANSWERS[q.columns]]
        return sum(np.abs(columns[f"{a}_prob"].astype(float) - columns[f"{a}_svr"]) / 2 for a in answers)
    return sum(reach[q.name] * columns[f"{q.name}_{by}"] for q in questions)


@pytest.mark.parametrize("by", selection.CRITERIA)
@pytest.mark.parametrize(
    "questions", [(QUESTIONS[0],), (SPIRAL,), QUESTIONS], ids=["smooth", "spiral", "all"]
)
def test_the_best_are_chosen_and_ties_go_by_id(catalog, columns, by, questions):
    chosen = select(catalog, by=by, questions=questions, count=25)
    scores = expected_scores(columns, by, questions)
    known = np.flatnonzero(np.isfinite(scores))
    best = sorted(known, key=lambda i: (-scores[i], i))[:25]
    assert ids(chosen) == [f"g{i:05d}" for i in best]
    np.testing.assert_allclose(chosen.galaxies["score"].to_numpy(), scores[best], rtol=1e-12)
    assert chosen.considered == len(known)


@pytest.mark.parametrize("diverse", [False, True])
def test_units_of_any_size_give_the_same_galaxies(catalog, columns, tmp_path, diverse):
    other = cataloged(str(tmp_path / "other"), columns, [7] * 42 + [6])
    asked = {"by": "ood", "count": 12, "diverse": diverse}
    first = select(catalog, **asked)
    assert ids(select(other, **asked)) == ids(first)


def test_fewer_galaxies_than_asked_for_are_all(catalog):
    for diverse in (False, True):
        chosen = select(catalog, by="entropy", count=1000, diverse=diverse)
        assert sorted(ids(chosen)) == [f"g{i:05d}" for i in range(COUNT)]


def test_diverse_galaxies_are_of_the_best_and_farther_apart(catalog):
    pool = ids(select(catalog, by="entropy", questions=(SPIRAL,), count=10 * selection.POOL_FACTOR))
    best = select(catalog, by="entropy", questions=(SPIRAL,), count=10)
    diverse = select(catalog, by="entropy", questions=(SPIRAL,), count=10, diverse=True)
    assert set(ids(diverse)) <= set(pool)
    assert ids(diverse)[0] == ids(best)[0]
    assert len(set(ids(diverse))) == 10

    def closest(chosen):
        points = np.sqrt(
            np.stack([chosen.galaxies[f"{a}_prob"].to_numpy() for a in ANSWERS[SPIRAL.columns]], 1)
        )
        gaps = np.linalg.norm(points[:, None] - points[None], axis=2)
        return gaps[np.triu_indices(10, 1)].min()

    assert closest(diverse) > 2 * closest(best)


def test_farthest_points_are_a_2_approximation_of_the_k_center():
    rng = np.random.default_rng(0)
    centers = rng.uniform(-10, 10, (5, 2))
    points = np.concatenate([center + rng.uniform(-0.1, 0.1, (40, 2)) for center in centers])
    chosen = farthest_points(points, 5)
    # One of each cluster, although they are far from random order.
    assert sorted(chosen // 40) == [0, 1, 2, 3, 4]
    assert chosen[0] == 0
    assert farthest_points(points[:3], 9).tolist() in ([0, 1, 2], [0, 2, 1])
    assert sorted(farthest_points(np.zeros((4, 2)), 4)) == [0, 1, 2, 3]


def test_scores_that_no_model_gave_are_refused(tmp_path, columns):
    absent = columns | {f"{q}_mutual_info": np.full(COUNT, np.nan, np.float32) for q in QUESTION_NAMES}
    catalog = cataloged(str(tmp_path / "c"), absent, [COUNT])
    with pytest.raises(UsageError, match=r"mutual_info.*bayesian.*--models"):
        select(catalog, by="mutual_info", count=5)
    with pytest.raises(UsageError, match=r"nothing.*--catalog"):
        select(str(tmp_path / "nothing"), by="ood", count=5)
