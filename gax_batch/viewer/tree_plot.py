"""One galaxy's posterior, drawn as the tree of questions."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gax_batch import gz2

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOR = "#2b62a8"
_LEFT, _INDENT = -0.55, 0.075
"""Of the labels, in units of the axes' width."""
_FAINTEST = 0.25
_GAP = 0.5


def plot_tree(row: Mapping[str, Any], axes: "Axes | None" = None) -> "Axes":
    """Draw the 37 answers of a galaxy; see `gax_batch.viewer.notebook.Snapshot.plot`.

    Args:
        row: The columns of the catalog; numbers that are null are not drawn.
        axes: Where to; new ones if None. The tree stands to the left of them.
    """
    if axes is None:
        from matplotlib import pyplot

        # A notebook shows the figures that pyplot knows.
        axes = pyplot.figure(figsize=(8, 9)).add_axes((0.36, 0.06, 0.62, 0.89))
    places: dict[int, float] = {}
    height = 0.0
    for question, depth in in_depth():
        reach = 1.0 if question.parent is None else row[f"{gz2.ANSWERS[question.parent]}_prob"]
        alpha = _FAINTEST + (1 - _FAINTEST) * (reach or 0.0)
        _label(axes, depth, height, f"{gz2.in_words(question.name)}?", weight="bold")
        if question.parent is not None:
            _branch(axes, depth, places[question.parent], height)
        for column in range(question.start, question.stop):
            height += 1
            places[column] = height
            _label(axes, depth, height, f"   {gz2.in_words(question.answers[column - question.start])}")
            _draw(axes, row, column, height, alpha)
        height += 1 + _GAP
    axes.set_yticks([])
    axes.grid(axis="x", color="0.9", linewidth=0.7)
    axes.set(xlim=(-0.01, 1.01), ylim=(height - 0.6, -0.8), xlabel="fraction of all volunteers")
    axes.set_title(f"{row['galaxy_id']}   {row['gz2_class'] or ''}", parse_math=False)
    return axes


def in_depth(parent: int | None = None, depth: int = 0) -> Iterator[tuple[gz2.Question, int]]:
    """The questions in the order of the tree, each before those that its answers lead to, and its depth."""
    for question in gz2.QUESTIONS:
        if question.parent == parent:
            yield question, depth
            for column in range(question.start, question.stop):
                yield from in_depth(column, depth + 1)


def _label(axes: "Axes", depth: int, height: float, text: str, weight: str = "normal") -> None:
    where = axes.get_yaxis_transform()
    axes.text(_LEFT + depth * _INDENT, height, text, transform=where, va="center", fontsize=8, weight=weight)


def _branch(axes: "Axes", depth: int, above: float, below: float) -> None:
    """A line from an answer down to the question that it leads to."""
    left, right = (_LEFT + (depth - share) * _INDENT for share in (0.85, 0.15))
    axes.plot(
        [left, left, right],
        [above + 0.4, below, below],
        color="0.6",
        linewidth=0.8,
        transform=axes.get_yaxis_transform(),
        clip_on=False,
    )


def _draw(axes: "Axes", row: Mapping[str, Any], column: int, height: float, alpha: float) -> None:
    name = gz2.ANSWERS[column]
    prob, std, lo, hi = (
        np.nan if row[f"{name}_{quantity}"] is None else row[f"{name}_{quantity}"]
        for quantity in ("prob", "std", "lo", "hi")
    )
    axes.plot([lo, hi], [height, height], color=_COLOR, alpha=alpha, linewidth=1.2)
    axes.plot([prob - std, prob + std], [height, height], color=_COLOR, alpha=alpha, linewidth=4)
    axes.plot([prob], [height], "o", color=_COLOR, alpha=alpha, markersize=5)
