import numpy as np
import pytest
from labeled_galaxies import labels_of, partly, random_fractions

from gax_batch.analysis.evaluation import looks
from gax_batch.analysis.evaluation.metrics import Cells, asked

COUNT = 100


def galaxy(*, reach=6.0, light=100.0, blur=False):
    """A round galaxy `[64, 64, 3]` on a dark sky, with knots of a pixel that a blur spreads."""
    y, x = np.mgrid[-31.5:32, -31.5:32]
    profile = light * np.exp(-np.hypot(x, y) / reach) * (1 + 0.3 * (-1) ** np.arange(64)[None, :])
    if blur:
        profile = (profile + np.roll(profile, 1, axis=1)) / 2
    return np.repeat(np.clip(profile + 10, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def test_each_look_grows_with_what_it_is_called():
    first, larger, brighter, blurred = (
        {look: float(values[0]) for look, values in looks.measure(galaxy(**kind)[None]).items()}
        for kind in ({}, {"reach": 9.0}, {"light": 180.0}, {"blur": True})
    )
    assert larger["size"] > first["size"] + 0.15
    assert brighter["brightness"] > first["brightness"] + 0.3
    assert brighter["size"] == pytest.approx(first["size"], abs=0.1)
    assert blurred["sharpness"] < first["sharpness"] - 0.5
    assert blurred["size"] == pytest.approx(first["size"], abs=0.1)


@pytest.fixture
def cells():
    """Intervals of a half-width of 0.1 that fail for the first 20 galaxies, whose predictions err by 0.2."""
    labels = labels_of(random_fractions(COUNT))
    shift = np.where(np.arange(COUNT) < 20, 0.2, 0.05)[:, None].astype(np.float32)
    predicted = labels.cumulative + shift
    return labels, Cells(predicted - 0.1, predicted + 0.1, labels, predicted)


def test_intervals_that_fail_on_faint_galaxies_are_found_by_brightness_alone(cells):
    labels, judged = cells
    values = {"brightness": np.arange(COUNT) * 1.0, "size": np.arange(COUNT) % 20.0}
    found = looks.by_fifth(judged, values)
    for suffix in ("", "_asked"):
        held = {look: [group[f"coverage{suffix}"] for group in groups] for look, groups in found.items()}
        assert held["brightness"] == [0, 1, 1, 1, 1]
        assert held["size"] == pytest.approx([0.8] * 5, abs=0.02 if suffix else 1e-6)
    assert [group["rmse"] for group in found["brightness"]] == [0.2, 0.05, 0.05, 0.05, 0.05]
    assert [group["width"] for group in found["brightness"]] == [0.2] * 5
    assert [group["fractions"] for group in found["size"]] == [20 * 37] * 5
    assert asked(labels).any()


def test_unknown_fractions_are_in_no_fifth():
    labels = labels_of(partly(random_fractions(COUNT)))
    lo, hi = np.zeros((COUNT, 37), np.float32), np.ones((COUNT, 37), np.float32)
    found = looks.by_fifth(Cells(lo, hi, labels, hi), {"size": np.arange(COUNT) * 1.0})
    assert [group["fractions"] for group in found["size"]] == [20 * 17] * 5
    assert all(np.isfinite(group["rmse"]) for group in found["size"])


def test_a_few_galaxies_leave_fifths_out_and_keep_the_numbers_of_the_others():
    labels = labels_of(random_fractions(2))
    judged = Cells(labels.cumulative, labels.cumulative, labels, labels.cumulative)
    found = looks.by_fifth(judged, {"size": np.array([2.0, 1.0])})
    assert [looks.fifth(group) for group in found["size"]] == ["1", "3"]


def test_the_table_has_a_row_for_each_fifth(cells):
    rows = looks.table(looks.by_fifth(cells[1], {"brightness": np.arange(COUNT) * 1.0}))
    assert len(rows) == 6
    assert {len(row) for row in rows} == {8}
    assert rows[1][:5] == ("brightness", "1", "740", "0.2000", "0.0%")
    assert rows[5][1:5] == ("5", "740", "0.0500", "100.0%")
