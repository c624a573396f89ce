from dataclasses import replace

import numpy as np
import pytest

from gax_batch import gz2
from gax_batch.analysis.labels import NO_CLASS, Labels, join
from gax_batch.errors import UsageError

ROUND, EDGE_ON, SPIRAL = 0, 3, 4


def galaxy(**answers):
    """Fractions of one galaxy that is asked about arms; columns are given as c7=0.65."""
    values = np.full((1, gz2.N_ANSWERS), np.nan, np.float32)
    values[0, :5] = [0.1, 0.88, 0.02, 0.03, 0.85]
    values[0, 13:15] = [0.1, 0.9]
    for name, value in answers.items():
        values[0, int(name[1:])] = value
    return Labels.of_fractions(["g"], values, 40.0, definition="debiased", numbering="GalaxyID")


def fact(classes=-1, strict=True, largest=-1, ids=("g",)):
    count = len(ids)
    return Labels(
        list(ids),
        np.full((count, gz2.N_ANSWERS), np.nan, np.float32),
        np.zeros(count, np.float32),
        np.full(count, classes, np.int8),
        np.full(count, strict),
        np.full(count, largest, np.int8),
        "debiased",
        "GalaxyID",
    )


def test_tables_about_a_galaxy_become_one_row():
    others = fact(ids=("a", "b"), largest=0)
    joined = join([galaxy(), others, fact(SPIRAL, strict=False), galaxy(c7=0.65), fact(largest=4)])
    assert joined.ids == ["g", "a", "b"]
    assert joined.classes.tolist() == [SPIRAL, -1, -1]
    assert joined.strict.tolist() == [False, True, True]
    assert joined.largest.tolist() == [4, 0, 0]
    assert joined.volunteers.tolist() == [40, 0, 0]
    assert joined.cumulative[0, 7] == pytest.approx(0.65)
    assert joined.cumulative[0, 1] == pytest.approx(0.88)


@pytest.mark.parametrize(
    "parts",
    [
        [galaxy(), galaxy(c0=0.2)],
        [fact(SPIRAL), fact(ROUND)],
        [fact(SPIRAL), fact(NO_CLASS)],
        [fact(SPIRAL), fact(SPIRAL, strict=False)],
        [fact(largest=0), fact(largest=1)],
        [galaxy(), fact(ROUND)],
        [galaxy(), fact(EDGE_ON)],
        [galaxy(c7=0.6), fact(SPIRAL, strict=False)],
        [galaxy(c7=0.65), fact(SPIRAL)],
        [galaxy(c7=0.75), fact(SPIRAL, strict=False)],
        [galaxy(c7=0.65), fact(NO_CLASS)],
        [galaxy(), fact(largest=1)],
    ],
)
def test_contradictions_are_counted_and_refused(parts):
    with pytest.raises(UsageError, match=r"\b1 .*\bg\n"):
        join([fact(ids=("a", "b")), *parts])


@pytest.mark.parametrize(
    "parts",
    [
        [galaxy(), galaxy(c0=0.1004)],
        [galaxy(), fact(SPIRAL)],
        [galaxy(c7=0.6895), fact(SPIRAL)],
        [galaxy(c7=0.6185), fact(SPIRAL, strict=False)],
        [galaxy(c7=0.6195), fact(NO_CLASS)],
        [galaxy(), fact(NO_CLASS)],
        [galaxy(c14=0.8795), fact(largest=4)],
    ],
)
def test_what_is_unknown_or_differs_by_a_rounding_contradicts_nothing(parts):
    assert len(join(parts)) == 1


def test_tables_of_different_definitions_or_numberings_are_not_merged():
    for name, value in (("definition", "weighted"), ("numbering", "asset_id")):
        with pytest.raises(UsageError, match=value):
            join([galaxy(), replace(galaxy(), **{name: value})])
