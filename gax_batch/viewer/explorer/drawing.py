"""One galaxy's tree of questions as places on a drawing: questions in columns, branches as wide as likely."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch import gz2
from gax_batch.viewer.tree_plot import in_depth

COLUMN, BLOCK, MARGIN = 350, 280, 8
ROW, HEAD, GAP = 34, 30, 16
WIDEST_BRANCH = 26.0
BAR = BLOCK - 24


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer's row: its place, its numbers (None where the catalog has none), whether it is likeliest."""

    label: str
    x: float
    y: float
    prob: float | None
    std: float | None
    lo: float | None
    hi: float | None
    likely: bool


@dataclass(frozen=True, slots=True)
class Question:
    """A question's block; `reach` is the fraction of volunteers who are asked it."""

    label: str
    x: float
    y: float
    height: float
    reach: float
    answers: list[Answer]


@dataclass(frozen=True, slots=True)
class Branch:
    """From an answer to a question that it leads to."""

    path: str
    width: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """The whole tree, in pixels."""

    width: float
    height: float
    questions: list[Question]
    branches: list[Branch]


def draw(row: Mapping[str, Any]) -> Drawing:
    """Lay a galaxy's tree out.

    Args:
        row: The columns of the catalog.
    """
    prob = np.array([np.nan if (p := row[f"{a}_prob"]) is None else p for a in gz2.ANSWERS])
    likely = gz2.most_likely(np.nan_to_num(prob))
    columns: dict[int, list[gz2.Question]] = {}
    for question, depth in in_depth():
        columns.setdefault(depth, []).append(question)
    tallest = max(map(_height, columns.values()))
    blocks: list[Question] = []
    starts: dict[int, tuple[float, float]] = {}
    branches: list[Branch] = []
    for depth, questions in columns.items():
        x, y = MARGIN + depth * COLUMN, MARGIN + (tallest - _height(questions)) / 2
        for question in questions:
            parent = question.parent
            reach = 1.0 if parent is None else float(np.nan_to_num(prob[parent]))
            answers = _answers(question, row, likely, x, y)
            for column, answer in enumerate(answers, question.start):
                starts[column] = (x + BLOCK, answer.y + ROW / 2)
            height = HEAD + ROW * len(answers)
            label = f"{gz2.in_words(question.name)}?"
            blocks.append(Question(label, x, y, height, reach, answers))
            if parent is not None:
                branches.append(_branch(starts[parent], (x, y + HEAD / 2), reach))
            y += height + GAP
    width = 2 * MARGIN + COLUMN * (len(columns) - 1) + BLOCK
    return Drawing(width, tallest + 2 * MARGIN, blocks, branches)


def _answers(
    question: gz2.Question, row: Mapping[str, Any], likely: npt.NDArray[np.bool_], x: float, y: float
) -> list[Answer]:
    """The rows of a question's block, whose upper left corner is at x and y."""
    answers = []
    for place, name in enumerate(question.answers):
        column = question.start + place
        prob, std, lo, hi = (row[f"{gz2.ANSWERS[column]}_{kind}"] for kind in ("prob", "std", "lo", "hi"))
        top, on_path = y + HEAD + place * ROW, bool(likely[column])
        answers.append(Answer(gz2.in_words(name), x + 12, top, prob, std, lo, hi, on_path))
    return answers


def _height(questions: list[gz2.Question]) -> float:
    return sum(HEAD + ROW * len(q.answers) for q in questions) + GAP * (len(questions) - 1)


def _branch(start: tuple[float, float], end: tuple[float, float], reach: float) -> Branch:
    middle = (start[0] + end[0]) / 2
    path = f"M{start[0]:.1f} {start[1]:.1f}C{middle:.1f} {start[1]:.1f} {middle:.1f} {end[1]:.1f} "
    return Branch(f"{path}{end[0]:.1f} {end[1]:.1f}", round(max(reach * WIDEST_BRANCH, 0.75), 2))
