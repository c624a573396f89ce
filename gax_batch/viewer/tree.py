"""The tree of questions of one galaxy: one layout, which a terminal, a page and Matplotlib show.

The layout is that of lines of text. Each answer is followed by the questions that it leads to.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gax_batch import gz2

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = 0.3
"""Space above each question, in lines."""
_COLOR = "#2b62a8"
_LEFT, _CHARACTER = -0.55, 0.018
"""Left end of the labels and width of a character, as fractions of the width of the axes."""
_FAINTEST = 0.25
_WIDEST_BRANCH = 5.0


@dataclass(frozen=True, slots=True)
class TreeLine:
    """A question, or an answer with its numbers.

    Attributes:
        label: Text of the question or of the answer.
        prefix: Box-drawing characters that connect the line with those above it; their number is the indent.
        y: Position of the line below the top of the drawing, in lines.
        reach: Fraction of all volunteers who are asked the question, 0 to 1.
        parent_y: `y` of the answer that leads to the question; None for an answer and for a first question.
        column: Index of the answer in `gax_batch.gz2.ANSWERS`; None for a question.
        likely: Whether the answer is on the most likely path.
        prob: Cumulative fraction of the answer; None where the catalog has none.
        std: Standard deviation of its posterior draws, or None.
        lo: Lower end of its 90 % interval, or None.
        hi: Upper end of its 90 % interval, or None.
    """

    label: str
    prefix: str
    y: float
    reach: float
    parent_y: float | None = None
    column: int | None = None
    likely: bool = False
    prob: float | None = None
    std: float | None = None
    lo: float | None = None
    hi: float | None = None


def lay_out(row: Mapping[str, Any]) -> list[TreeLine]:
    """Return the lines of a galaxy's tree, from top to bottom.

    Args:
        row: Columns of the catalog: `prob`, `std`, `lo` and `hi` of each answer, floats or None.
    """
    prob = np.nan_to_num(np.array([row[f"{name}_prob"] for name in gz2.ANSWERS], np.float64))
    likely = gz2.most_likely(prob)
    lines: list[TreeLine] = []
    answer_y: dict[int | None, float] = {}
    y = -GAP
    for prefix, question, column in _walk():
        reach = 1.0 if question.parent is None else float(prob[question.parent])
        if column is None:
            y += GAP
            label = f"{gz2.in_words(question.name)}?"
            lines.append(TreeLine(label, prefix, y, reach, answer_y.get(question.parent)))
        else:
            answer_y[column] = y
            label = gz2.in_words(question.answers[column - question.start])
            numbers = (row[f"{gz2.ANSWERS[column]}_{kind}"] for kind in ("prob", "std", "lo", "hi"))
            lines.append(TreeLine(label, prefix, y, reach, None, column, bool(likely[column]), *numbers))
        y += 1
    return lines


def plot_tree(row: Mapping[str, Any], axes: "Axes | None" = None) -> "Axes":
    """Draw the 37 answers of a galaxy; see `gax_batch.viewer.notebook.Snapshot.plot`.

    Args:
        row: Columns of the catalog; numbers that are None are not drawn.
        axes: Matplotlib's axes to draw on, with room for the labels to their left; new ones if None.
    """
    if axes is None:
        from matplotlib import pyplot

        # A notebook shows the figures that pyplot knows.
        axes = pyplot.figure(figsize=(8, 9)).add_axes((0.36, 0.06, 0.62, 0.89))
    lines = lay_out(row)
    beside = axes.get_yaxis_transform()
    for line in lines:
        left = _LEFT + len(line.prefix) * _CHARACTER
        weight = "bold" if line.column is None else "normal"
        axes.text(left, line.y, line.label, transform=beside, va="center", fontsize=8, weight=weight)
        if line.parent_y is not None:
            trunk, end = left - 1.2 * _CHARACTER, left - 0.3 * _CHARACTER
            path = [trunk, trunk, end], [line.parent_y + 0.5, line.y, line.y]
            width = max(line.reach * _WIDEST_BRANCH, 0.5)
            axes.plot(*path, color="0.75", linewidth=width, transform=beside, clip_on=False)
        if line.column is not None:
            _plot_answer(axes, line)
    axes.set_yticks([])
    axes.grid(axis="x", color="0.9", linewidth=0.7)
    axes.set(xlim=(-0.01, 1.01), ylim=(lines[-1].y + 0.8, -0.8), xlabel="fraction of all volunteers")
    axes.set_title(f"{row['galaxy_id']}   {row['gz2_class'] or ''}", parse_math=False)
    return axes


def _walk(parent: int | None = None, prefix: str = "") -> Iterator[tuple[str, gz2.Question, int | None]]:
    """Yield the prefix, the question and the answer's column (None for the question itself) of each line."""
    for question in gz2.QUESTIONS:
        if question.parent != parent:
            continue
        yield prefix, question, None
        for column in range(question.start, question.stop):
            last = column == question.stop - 1
            yield f"{prefix}{'└' if last else '├'} ", question, column
            yield from _walk(column, f"{prefix}{' ' if last else '│'}   ")


def _plot_answer(axes: "Axes", line: TreeLine) -> None:
    """Draw an answer's fraction, the spread of its draws (thick) and its interval (thin)."""
    alpha = _FAINTEST + (1 - _FAINTEST) * line.reach
    prob, std, lo, hi = (np.nan if v is None else v for v in (line.prob, line.std, line.lo, line.hi))
    y = [line.y, line.y]
    axes.plot([lo, hi], y, color=_COLOR, alpha=alpha, linewidth=1.2)
    axes.plot([prob - std, prob + std], y, color=_COLOR, alpha=alpha, linewidth=4)
    axes.plot([prob], y[:1], "o", color=_COLOR, alpha=alpha, markersize=5)
