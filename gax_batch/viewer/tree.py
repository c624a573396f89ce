"""The tree of questions of one galaxy: one drawing, which a page shows as SVG and Matplotlib draws on axes.

Questions are blocks in columns. The width of a branch is its probability. A terminal shows the same tree as
text, in the order of `walk`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gax_batch import gz2

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMN, BLOCK, MARGIN = 350, 280, 8
ROW, HEAD, GAP = 34, 30, 16
WIDEST_BRANCH = 26.0
PADDING = 12
BAR = BLOCK - 2 * PADDING
RARE = 0.05
"""Fraction of the volunteers below which a question is drawn fainter, since it hardly matters."""

_PER_INCH = 100
_FRACTION, _SPREAD, _INK, _LINE = "#2b62a8", "#b5531c", "#20242b", "#d9d7d1"


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """An answer of a block.

    Attributes:
        label: Text of the answer.
        x: Left end of the answer, pixels.
        y: Upper end of the answer, pixels from the top.
        prob: Cumulative fraction; None where the catalog has none, as for the other numbers.
        std: Standard deviation of the posterior draws.
        lo: Lower end of the 90 % interval.
        hi: Upper end of the 90 % interval.
        likely: Whether the answer is on the most likely path.
    """

    label: str
    x: float
    y: float
    prob: float | None
    std: float | None
    lo: float | None
    hi: float | None
    likely: bool


@dataclass(frozen=True, slots=True)
class QuestionBlock:
    """A question and its answers; `reach` is the fraction of all volunteers who are asked it."""

    label: str
    x: float
    y: float
    height: float
    reach: float
    answers: list[AnswerRow]


@dataclass(frozen=True, slots=True)
class Branch:
    """A curve from an answer to a question that it leads to, in pixels."""

    start: tuple[float, float]
    end: tuple[float, float]
    width: float

    @property
    def points(self) -> list[tuple[float, float]]:
        """The four points of its cubic Bezier curve."""
        middle = (self.start[0] + self.end[0]) / 2
        return [self.start, (middle, self.start[1]), (middle, self.end[1]), self.end]

    @property
    def path(self) -> str:
        """The curve as a path of SVG."""
        first, *others = (f"{x:.1f} {y:.1f}" for x, y in self.points)
        return f"M{first}C{' '.join(others)}"


@dataclass(frozen=True, slots=True)
class TreeDrawing:
    """The whole tree, in pixels."""

    width: float
    height: float
    questions: list[QuestionBlock]
    branches: list[Branch]


def walk(parent: int | None = None, prefix: str = "") -> Iterator[tuple[str, gz2.Question, int | None]]:
    """Yield the lines of the tree from top to bottom; each answer is followed by the questions it leads to.

    Args:
        parent: Column of the answer whose questions are walked; None for the whole tree.
        prefix: Box-drawing characters before each line.

    Yields:
        The prefix of the line, its question, and the column of its answer: None for the question itself.
    """
    for question in gz2.QUESTIONS:
        if question.parent != parent:
            continue
        yield prefix, question, None
        for column in range(question.start, question.stop):
            last = column == question.stop - 1
            yield f"{prefix}{'└' if last else '├'} ", question, column
            yield from walk(column, f"{prefix}{' ' if last else '│'}   ")


def lay_out(row: Mapping[str, Any]) -> TreeDrawing:
    """Return the places of everything on the drawing of a galaxy's tree.

    Args:
        row: Columns of the catalog: `prob`, `std`, `lo` and `hi` of each answer, floats or None.
    """
    prob = np.nan_to_num(np.array([row[f"{name}_prob"] for name in gz2.ANSWERS], np.float64))
    likely = gz2.most_likely(prob)
    columns: dict[int, list[gz2.Question]] = {}
    for prefix, question, answer in walk():
        if answer is None:
            columns.setdefault(len(prefix), []).append(question)
    tallest = max(map(_height, columns.values()))
    blocks: list[QuestionBlock] = []
    starts: dict[int, tuple[float, float]] = {}
    branches: list[Branch] = []
    for place, questions in enumerate(columns.values()):
        x, y = MARGIN + place * COLUMN, MARGIN + (tallest - _height(questions)) / 2
        for question in questions:
            parent = question.parent
            reach = 1.0 if parent is None else float(prob[parent])
            answers = _answers(question, row, likely, x, y)
            for column, answer_row in enumerate(answers, question.start):
                starts[column] = (x + BLOCK, answer_row.y + ROW / 2)
            height = HEAD + ROW * len(answers)
            label = f"{gz2.in_words(question.name)}?"
            blocks.append(QuestionBlock(label, x, y, height, reach, answers))
            if parent is not None:
                width = round(max(reach * WIDEST_BRANCH, 0.75), 2)
                branches.append(Branch(starts[parent], (x, y + HEAD / 2), width))
            y += height + GAP
    width = 2 * MARGIN + COLUMN * (len(columns) - 1) + BLOCK
    return TreeDrawing(width, tallest + 2 * MARGIN, blocks, branches)


def plot_tree(row: Mapping[str, Any], axes: "Axes | None" = None) -> "Axes":
    """Draw the 37 answers of a galaxy; see `gax_batch.viewer.notebook.Snapshot.plot`.

    Args:
        row: Columns of the catalog; numbers that are None are not drawn.
        axes: Matplotlib's axes to draw on; new ones if None.
    """
    drawing = lay_out(row)
    if axes is None:
        from matplotlib import pyplot

        # A notebook shows only figures that pyplot manages.
        axes = pyplot.figure(figsize=figure_size(drawing)).add_axes((0, 0, 1, 0.94))
    axes.set(xlim=(0, drawing.width), ylim=(drawing.height, 0), aspect="equal")
    axes.set_axis_off()
    axes.set_title(f"{row['galaxy_id']}   {row['gz2_class'] or ''}", parse_math=False)
    # Widths of lines and sizes of fonts are in points, the layout is in pixels.
    points = 72 * axes.get_window_extent().width / axes.figure.dpi / drawing.width
    for branch in drawing.branches:
        _plot_branch(axes, branch, points)
    for block in drawing.questions:
        _plot_block(axes, block, points)
    return axes


def figure_size(drawing: TreeDrawing) -> tuple[float, float]:
    """Return the width and height in inches of a figure that has room for the drawing and a title."""
    return drawing.width / _PER_INCH, drawing.height / _PER_INCH / 0.94


def _height(questions: list[gz2.Question]) -> float:
    return sum(HEAD + ROW * len(q.answers) for q in questions) + GAP * (len(questions) - 1)


def _answers(
    question: gz2.Question, row: Mapping[str, Any], likely: npt.NDArray[np.bool_], x: float, y: float
) -> list[AnswerRow]:
    """Return the rows of a question's block, whose upper left corner is at x and y."""
    answers = []
    for place, name in enumerate(question.answers):
        column = question.start + place
        prob, std, lo, hi = (row[f"{gz2.ANSWERS[column]}_{kind}"] for kind in ("prob", "std", "lo", "hi"))
        top, on_path = y + HEAD + place * ROW, bool(likely[column])
        answers.append(AnswerRow(gz2.in_words(name), x + PADDING, top, prob, std, lo, hi, on_path))
    return answers


def _plot_branch(axes: "Axes", branch: Branch, points: float) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    path = Path(branch.points, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
    style: dict[str, Any] = {"facecolor": "none", "edgecolor": _FRACTION, "alpha": 0.35, "capstyle": "butt"}
    axes.add_patch(PathPatch(path, linewidth=branch.width * points, **style))


def _plot_block(axes: "Axes", block: QuestionBlock, points: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=8"
    corner = (block.x, block.y)
    axes.add_patch(FancyBboxPatch(corner, BLOCK, block.height, style, facecolor="white", edgecolor=_LINE))
    left, right, y = block.x + PADDING, block.x + BLOCK - PADDING, block.y + 20
    axes.text(left, y, block.label, fontsize=13 * points, weight="bold", color=_INK)
    asked = f"asked {100 * block.reach:.0f} %"
    axes.text(right, y, asked, fontsize=11 * points, ha="right", color="#5a6270")
    for answer in block.answers:
        _plot_answer(axes, answer, points, alpha=0.45 if block.reach < RARE else 1.0)


def _plot_answer(axes: "Axes", answer: AnswerRow, points: float, alpha: float) -> None:
    """Draw an answer's text, its fraction (bar), the spread of its draws (thick) and its interval."""
    left, y = answer.x, answer.y + 21.5
    font: dict[str, Any] = {"fontsize": 13 * points, "color": _INK}
    font["weight"] = "bold" if answer.likely else "normal"
    axes.text(left, answer.y + 12, answer.label, **font)

    def bar(start: float, stop: float, color: str, width: float, kind: str) -> None:
        ends = [left + BAR * start, left + BAR * stop]
        style: dict[str, Any] = {"linewidth": width * points, "solid_capstyle": "butt", "alpha": alpha}
        axes.plot(ends, [y, y], color=color, gid=kind, **style)

    bar(0, 1, _LINE, 7, "track")
    if answer.prob is None:
        return
    bar(0, answer.prob, _FRACTION, 7, "fraction")
    text = f"{answer.prob:.2f}"
    if answer.lo is not None and answer.hi is not None:
        text += f" [{answer.lo:.2f}, {answer.hi:.2f}]"
        bar(answer.lo, answer.hi, _INK, 1.4, "interval")
        for end in (left + BAR * answer.lo, left + BAR * answer.hi):
            axes.plot([end, end], [y - 5.5, y + 5.5], color=_INK, linewidth=1.4 * points, alpha=alpha)
    if answer.std is not None:
        spread = max(answer.prob - answer.std, 0), min(answer.prob + answer.std, 1)
        bar(*spread, _SPREAD, 4, "spread")
    axes.text(left + BAR, answer.y + 12, text, ha="right", **font)
