"""One galaxy's posterior, drawn as the tree of questions."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gax_batch import tree

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOR = "#2b62a8"
_INDENT = 0.045
_FAINTEST = 0.25


def plot_tree(row: Mapping[str, Any], axes: "Axes | None" = None) -> "Axes":
    """Draw the 37 answers of a galaxy; see `gax_batch.notebook.Snapshot.plot`.

    Args:
        row: The columns of the catalog; numbers that are null are not drawn.
        axes: Where to; new ones if None.
    """
    if axes is None:
        from matplotlib.figure import Figure

        axes = Figure(figsize=(7, 9), layout="constrained").add_subplot()
    labels: list[tuple[float, str]] = []
    height = 0.0
    for question, depth in in_depth():
        reach = 1.0 if question.parent is None else row[f"{tree.ANSWERS[question.parent]}_prob"]
        alpha = _FAINTEST + (1 - _FAINTEST) * (reach or 0.0)
        indent = "    " * depth
        labels.append((height, f"{question.name[4:].replace('_', ' ')}?{indent}"))
        axes.axhline(height + 0.5, color="0.85", linewidth=0.5, zorder=0)
        for column in range(question.start, question.stop):
            height += 1
            answer = question.answers[column - question.start].partition("_")[2].replace("_", " ")
            labels.append((height, f"{answer}{indent}  "))
            _draw(axes, row, column, height, alpha)
        height += 1.4
    axes.set_yticks([place for place, _ in labels], [text for _, text in labels], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(-0.01, 1.01), ylim=(height - 0.6, -0.8), xlabel="fraction of all volunteers")
    axes.set_title(f"{row['galaxy_id']}  {row['gz2_class'] or ''}", parse_math=False)
    return axes


def in_depth(parent: int | None = None, depth: int = 0) -> Iterator[tuple[tree.Question, int]]:
    """The questions in the order of the tree, each before those that its answers lead to, and its depth."""
    for question in tree.QUESTIONS:
        if question.parent == parent:
            yield question, depth
            for column in range(question.start, question.stop):
                yield from in_depth(column, depth + 1)


def _draw(axes: "Axes", row: Mapping[str, Any], column: int, height: float, alpha: float) -> None:
    name = tree.ANSWERS[column]
    prob, std, lo, hi = (
        np.nan if row[f"{name}_{quantity}"] is None else row[f"{name}_{quantity}"]
        for quantity in ("prob", "std", "lo", "hi")
    )
    axes.plot([lo, hi], [height, height], color=_COLOR, alpha=alpha, linewidth=1.2)
    axes.plot([prob - std, prob + std], [height, height], color=_COLOR, alpha=alpha, linewidth=4)
    axes.plot([prob], [height], "o", color=_COLOR, alpha=alpha, markersize=5)
