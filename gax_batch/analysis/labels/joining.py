"""Merge tables about the same galaxies into one row per galaxy."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gax_batch import gz2
from gax_batch.analysis.labels.classes import (
    CLASS_CONDITIONS,
    CLEAR_CLASSES,
    LARGEST_COLUMNS,
    NO_CLASS,
    STRICT_SPIRAL,
)
from gax_batch.analysis.labels.faults import refuse_faults
from gax_batch.analysis.labels.rows import Labels, require_alike

Rows = npt.NDArray[np.bool_]
# Published fractions are rounded to three digits or more.
ROUNDING = 1e-3
_SPIRAL = CLEAR_CLASSES.index("spiral")


def join(parts: Sequence[Labels]) -> Labels:
    """Merge tables with the same numbering and definition.

    Args:
        parts: At least one table, each without duplicate identifiers.

    Returns:
        One row per galaxy, in the order in which the galaxies first appear.

    Raises:
        UsageError: The definitions or numberings differ, or the tables contradict each other about a galaxy.
    """
    require_alike(parts)
    ids = list(dict.fromkeys(name for part in parts for name in part.ids))
    place = {name: row for row, name in enumerate(ids)}
    count = len(ids)
    merged = Labels(
        ids=ids,
        cumulative=np.full((count, gz2.N_ANSWERS), np.nan, np.float32),
        volunteers=np.zeros(count, np.float32),
        classes=np.full(count, -1, np.int8),
        strict=np.ones(count, bool),
        largest=np.full(count, -1, np.int8),
        definition=parts[0].definition,
        numbering=parts[0].numbering,
    )
    faults = {
        kind: np.zeros(count, bool)
        for kind in ("different fractions", "different classes", "different largest fractions")
    }
    for part in parts:
        rows = np.array([place[name] for name in part.ids], np.intp)
        for kind, found in _merge(merged, part, rows).items():
            faults[kind][rows] |= found
    refuse_faults(
        "the tables of labels contradict each other",
        ids,
        faults | contradictions(merged),
        "correct or remove these rows in one of the tables",
    )
    return merged


def _merge(merged: Labels, part: Labels, rows: npt.NDArray[np.intp]) -> dict[str, Rows]:
    """Write a table's values into the merged rows. Return which of its rows contradict them."""
    before = merged.take(rows)
    classified = (before.classes >= 0) & (part.classes >= 0)
    disagree = (before.classes != part.classes) | (before.strict != part.strict)
    both = before.known & part.known
    faults = {
        "different fractions": (both & (np.abs(before.cumulative - part.cumulative) > ROUNDING)).any(axis=1),
        "different classes": classified & disagree,
        "different largest fractions": (before.largest >= 0)
        & (part.largest >= 0)
        & (before.largest != part.largest),
    }
    merged.cumulative[rows] = np.where(before.known, before.cumulative, part.cumulative)
    merged.volunteers[rows] = np.maximum(before.volunteers, part.volunteers)
    merged.classes[rows] = np.where(before.classes >= 0, before.classes, part.classes)
    merged.strict[rows] = before.strict & part.strict
    merged.largest[rows] = np.where(before.largest >= 0, before.largest, part.largest)
    return faults


def contradictions(labels: Labels) -> dict[str, Rows]:
    """Return the rows with a class or a largest fraction that contradicts their known fractions.

    Returns:
        bool `[N]` by kind of contradiction. Fractions within `ROUNDING` of a threshold do not contradict.
    """
    return {
        "a class that contradicts the fractions": _excluded_class(labels),
        "a largest fraction that contradicts the fractions": _excluded_largest(labels),
    }


def _excluded_class(labels: Labels) -> Rows:
    fractions, classes = labels.cumulative, labels.classes
    excluded = np.zeros(len(labels), bool)
    for index, conditions in enumerate(CLASS_CONDITIONS):
        columns = [column for column, _ in conditions]
        thresholds = np.array([threshold for _, threshold in conditions])
        # Comparisons with NaN are False: an unknown fraction neither fails nor passes a threshold.
        fails = (fractions[:, columns] < thresholds - ROUNDING).any(axis=1)
        passes = (fractions[:, columns] > thresholds + ROUNDING).all(axis=1)
        excluded |= ((classes == index) & fails) | ((classes == NO_CLASS) & passes)
    arms = fractions[:, CLASS_CONDITIONS[_SPIRAL][-1][0]]
    wrongly_strict = labels.strict & (arms < STRICT_SPIRAL - ROUNDING)
    wrongly_loose = ~labels.strict & (arms > STRICT_SPIRAL + ROUNDING)
    return np.asarray(excluded | ((classes == _SPIRAL) & (wrongly_strict | wrongly_loose)))


def _excluded_largest(labels: Labels) -> Rows:
    candidates = labels.cumulative[:, list(LARGEST_COLUMNS)]
    named = candidates[np.arange(len(labels)), np.maximum(labels.largest, 0)]
    exceeded = (candidates > named[:, None] + ROUNDING).any(axis=1)
    return np.asarray((labels.largest >= 0) & exceeded)
