"""The galleries of the report: cutouts with their most likely path through the tree and its intervals."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gax_batch import gz2
from gax_batch.analysis.cutouts import NEEDED, Cutouts, read_cutouts
from gax_batch.catalog.diff import Changes, MovedGalaxy
from gax_batch.viewer.png import png_uri
from gax_batch.viewer.report.gather import CLASSES, SHOWN, SnapshotSummary

SHOWN_ANSWERS = 4

Pictures = Mapping[str, tuple[str | None, str]]
"""A data URI, or None and the reason why it is missing, by `galaxy_id`."""


@dataclass(frozen=True, slots=True)
class LikelyAnswer:
    """One answer on a galaxy's most likely path: cumulative fraction and its 90 % interval, or None."""

    label: str
    prob: float
    lo: float | None
    hi: float | None


@dataclass(frozen=True, slots=True)
class GalaxyCard:
    """One galaxy: its cutout as a data URI, or the reason why it is missing."""

    galaxy_id: str
    gz2_class: str
    picture: str | None
    missing: str
    note: str
    answers: list[LikelyAnswer]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Galaxies under a heading; `empty` is the text that is shown if it has none."""

    name: str
    title: str
    text: str
    cards: list[GalaxyCard]
    empty: str


_TEXTS = {
    "uncertain": (
        "Most uncertain",
        "The widest 90 % intervals, on average over the 37 answers.",
        "mean width",
        "The catalog has no intervals.",
    ),
    "far": (
        "Most out of distribution",
        "The most different from all galaxies on which the model was trained.",
        "score",
        "The catalog has no out-of-distribution scores.",
    ),
    "disagree": (
        "Largest disagreement of Bayesian CNN and CNN-SVR",
        "Total variation distance between the CNN-SVR alone and its blend with the Bayesian CNN, summed over "
        "the questions.",
        "distance",
        "The catalog has no fractions by the CNN-SVR.",
    ),
}


def galleries(
    catalog: str, found: SnapshotSummary, changes: Changes | None, unchanged: str, sources: str | None = None
) -> list[Gallery]:
    """Return all galleries, with cutouts that are read from their sources.

    Args:
        catalog: URI of the catalog.
        found: Summary of the snapshot, with the best galaxies of each gallery.
        changes: Changes since the previous snapshot; None if they are not known.
        unchanged: Text that is shown if there are no changed galaxies.
        sources: Current place of the survey's files; see `gax_batch.open_catalog`.
    """
    chosen = {name: best.rows for name, best in found.galleries.items()}
    chosen["changed"] = _moved(found, changes)
    pictures = _pictures(catalog, chosen.values(), sources)
    shown = [
        Gallery(
            answer,
            f"Surest {title}",
            "",
            _cards(chosen[answer], pictures, [""] * len(chosen[answer])),
            "None.",
        )
        for answer, title in CLASSES.items()
    ]
    for name, (title, text, label, empty) in _TEXTS.items():
        notes = [f"{label} {score:.3f}" for score in _scores(chosen[name])]
        shown.append(Gallery(name, title, text, _cards(chosen[name], pictures, notes), empty))
    title = "Most changed since the last snapshot"
    text = "" if changes is None else _change_text(changes)
    notes = [_change(galaxy) for galaxy in changes.most] if changes else []
    return [*shown, Gallery("changed", title, text, _cards(chosen["changed"], pictures, notes), unchanged)]


def path(prob: Mapping[int, float]) -> Iterator[tuple[gz2.Question, int]]:
    """Yield each question on a galaxy's most likely path, and the column of its most likely answer."""
    taken = gz2.most_likely(np.array([prob[column] for column in range(gz2.N_ANSWERS)]))
    for index in gz2.TOPOLOGICAL:
        question = gz2.QUESTIONS[index]
        for column in np.flatnonzero(taken[question.columns]).tolist():
            yield question, question.start + column


def _cards(
    rows: pa.Table, pictures: Mapping[str, tuple[str | None, str]], notes: Sequence[str]
) -> list[GalaxyCard]:
    return [
        GalaxyCard(
            row["galaxy_id"],
            row["gz2_class"] or "none",
            *pictures[row["galaxy_id"]],
            note,
            likely_answers(row),
        )
        for row, note in zip(rows.to_pylist(), notes, strict=True)
    ]


def likely_answers(row: Mapping[str, Any]) -> list[LikelyAnswer]:
    """Return the first answers on a galaxy's most likely path; none if the catalog has no fractions.

    Args:
        row: `<answer>_prob`, `<answer>_lo` and `<answer>_hi` of the catalog.
    """
    prob = {i: row[f"{name}_prob"] for i, name in enumerate(gz2.ANSWERS)}
    if any(value is None for value in prob.values()):
        return []
    shown = [(q, c) for q, c in path(prob) if gz2.ANSWERS[c] not in _IMPLIED][:SHOWN_ANSWERS]
    return [
        LikelyAnswer(
            answer_label(question, column),
            prob[column],
            row[f"{gz2.ANSWERS[column]}_lo"],
            row[f"{gz2.ANSWERS[column]}_hi"],
        )
        for question, column in shown
    ]


def answer_label(question: gz2.Question, column: int) -> str:
    """Return a label of an answer that is clear without its question."""
    answer = gz2.in_words(question.answers[column - question.start])
    return f"{_CONTEXT[question.name]}: {answer}" if question.name in _CONTEXT else answer


# Answers that are omitted because a card has little room and others imply them.
_IMPLIED = (
    "t02_edgeon_a05_no",
    "t03_bar_a07_no_bar",
    "t04_spiral_a09_no_spiral",
    "t06_odd_a14_yes",
    "t06_odd_a15_no",
)
_CONTEXT = {
    "t02_edgeon": "edge-on",
    "t05_bulge_prominence": "bulge",
    "t09_bulge_shape": "bulge",
    "t10_arms_winding": "arms",
    "t11_arms_number": "arms",
}


def _pictures(catalog: str, tables: Iterable[pa.Table], sources: str | None) -> Pictures:
    """Return a data URI, or the reason why it is missing, by `galaxy_id`. Read each galaxy once."""
    needed = [table.select(list(NEEDED)) for table in tables if len(table)]
    if not needed:
        return {}
    rows = pa.concat_tables(needed)
    ids = rows["galaxy_id"].to_pylist()
    first = {name: row for row, name in reversed(list(enumerate(ids)))}
    rows = rows.take(list(first.values()))
    found: Cutouts = read_cutouts(catalog, rows, sources)
    return {
        name: (None, str(found.missing[row].reason).replace("_", " "))
        if row in found.missing
        else (png_uri(found.pixels[row]), "")
        for row, name in enumerate(first)
    }


def _scores(rows: pa.Table) -> list[float]:
    return list(rows["score"].to_pylist()) if len(rows) else []


def _moved(found: SnapshotSummary, changes: Changes | None) -> pa.Table:
    """Return the changed galaxies in the order of `changes`."""
    if changes is None or not changes.most or not found.named:
        return pa.table({})
    rows = pa.concat_tables(found.named)
    places = {name: place for place, name in enumerate(rows["galaxy_id"].to_pylist())}
    return rows.take([places[galaxy.galaxy_id] for galaxy in changes.most][:SHOWN])


def _change(galaxy: MovedGalaxy) -> str:
    classes = f"{galaxy.class_before or 'none'} → {galaxy.class_after or 'none'}"
    return f"moved by {galaxy.rms:.3f} ({classes})"


def _change_text(changes: Changes) -> str:
    return (
        f"Snapshot {changes.before} to {changes.after}: {changes.added:,} galaxies added, "
        f"{changes.removed:,} removed, {changes.compared:,} processed anew, {changes.moved:,} of them moved, "
        f"{changes.reclassified:,} of another class. The root mean square over the 37 answers is shown."
    )
