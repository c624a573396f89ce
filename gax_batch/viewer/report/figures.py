"""The page's drawings: Matplotlib's SVG, with colors that follow the page's light or dark."""

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from gax_batch import gz2
from gax_batch.viewer.report.gather import FRACTION_BINS, SKY_SHAPE, SnapshotSummary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]

# Matplotlib writes these colors, and the page reads its own variables in their place.
INK = "#0000f0"
SERIES = ("#0000f1", "#0000f2", "#0000f3", "#0000f4", "#0000f5", "#0000f6")
_VARIABLES = {INK: "var(--ink)"} | {c: f"var(--series-{i})" for i, c in enumerate(SERIES)}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "gax",
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "font.size": 10,
}
# The sky is dark in both, so that faint and bright cells are seen alike.
_NIGHT = "#10141f"
_SVG_IDS = re.compile(r'(\bid="|url\(#|href="#)')


@contextmanager
def _figure(width: float, height: float) -> "Iterator[tuple[Figure, Axes]]":
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, figure.add_subplot()


def _svg(figure: "Figure", name: str, title: str) -> Markup:
    """An element of HTML; `name` keeps its ids apart from those of other drawings."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = buffer.getvalue()
    text = text[text.index("<svg ") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = _SVG_IDS.sub(rf"\g<1>{name}-", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    label = f'<svg role="img" aria-label="{escape(title)}" '
    return Markup(text.replace("<svg ", label, 1))  # noqa: S704 (Matplotlib escapes all text)


def rates(runs: Sequence[Mapping[str, Any]]) -> Markup:
    """Cutouts a second of each run, in the order of time."""
    with _figure(4.6, 2.8) as (figure, axes):
        values = [run["rate"] or 0.0 for run in runs]
        axes.bar(range(len(runs)), values, color=SERIES[0], width=0.7)
        _name_runs(axes, runs)
        axes.set_ylabel("cutouts / s")
        return _svg(figure, "rates", "Throughput of each run in cutouts per second")


def stages(runs: Sequence[Mapping[str, Any]]) -> Markup:
    """Seconds of each run by stage, stacked."""
    names = list(dict.fromkeys(stage for run in runs for stage in run["stages"]))
    with _figure(4.6, 2.8) as (figure, axes):
        base = np.zeros(len(runs))
        for index, name in enumerate(names):
            seconds = np.array([run["stages"].get(name, 0.0) for run in runs])
            color = SERIES[index % len(SERIES)]
            axes.bar(range(len(runs)), seconds, bottom=base, color=color, width=0.7, label=name)
            base += seconds
        _name_runs(axes, runs)
        axes.set_ylabel("seconds")
        figure.legend(
            loc="outside upper center", ncols=len(names), fontsize=9, handlelength=1, columnspacing=1
        )
        return _svg(figure, "stages", "Seconds of each run by stage")


def _name_runs(axes: "Axes", runs: Sequence[Mapping[str, Any]]) -> None:
    step = max(1, len(runs) // 6)
    places = range(0, len(runs), step)
    axes.set_xticks(places, [runs[place]["started"][5:16].replace("T", "\n") for place in places], fontsize=9)
    axes.set_xlim(-0.6, max(len(runs), 4) - 0.4)


def sky(found: SnapshotSummary, layer: str) -> Markup:
    """The whole sky in Mollweide's projection, right ascension growing to the left.

    Args:
        found: Of the snapshot.
        layer: `density`, galaxies per square degree, or `uncertainty`, the mean width of their intervals.
    """
    count, total = found.sky
    area = 4 * np.pi * np.degrees(1) ** 2 / count.size
    shown = np.ma.masked_invalid(np.where(count > 0, count / area, np.nan))
    title = "galaxies per square degree"
    if layer == "uncertainty":
        shown = np.ma.masked_invalid(np.where(count > 0, total / np.maximum(count, 1), np.nan))
        title = "mean width of the 90 % intervals"
    from matplotlib import colormaps, colors, ticker

    with _figure(4.6, 3.0) as (figure, flat):
        flat.remove()
        axes = figure.add_subplot(projection="mollweide", facecolor=_NIGHT)
        longitude = np.radians(180 - np.linspace(0, 360, SKY_SHAPE[1] + 1))
        latitude = np.arcsin(np.linspace(-1, 1, SKY_SHAPE[0] + 1))
        wide = layer == "density" and shown.max() > 30 * shown.min()
        bright = colors.ListedColormap(colormaps["viridis"](np.linspace(0.3, 1, 256)))
        norm = colors.LogNorm() if wide else None
        mesh = axes.pcolormesh(longitude, latitude, shown, cmap=bright, norm=norm, rasterized=True)
        axes.set_xticks(np.radians([-120, -60, 0, 60, 120]), ["20h", "16h", "12h", "8h", "4h"])
        axes.tick_params(axis="x", labelcolor="#c8cedb", labelsize=8)
        axes.set_yticks(np.radians([-60, -30, 0, 30, 60]), ["-60°", "-30°", "0°", "30°", "60°"], fontsize=8)
        axes.grid(color="#c8cedb", alpha=0.25, linewidth=0.5)
        bar = figure.colorbar(mesh, ax=axes, orientation="horizontal", shrink=0.7, aspect=30, pad=0.04)
        bar.set_label(title)
        if not wide:
            bar.locator = ticker.MaxNLocator(5)
        figure.set_dpi(150)
        return _svg(figure, f"sky-{layer}", f"Map of the sky in Mollweide's projection: {title}")


def distribution(found: SnapshotSummary, question: gz2.Question) -> Markup:
    """How a question's cumulative fractions are distributed: a strip per answer, and their means."""
    count = len(question.answers)
    with _figure(4.6, 0.75 + 0.27 * count) as (figure, axes):
        edges = np.linspace(0, 1, FRACTION_BINS + 1)
        whole = max(found.histogram[0].sum(), 1)
        for row in range(count):
            column = question.start + row
            share = found.histogram[column] / whole
            for left, value in zip(edges[:-1], share, strict=True):
                if value:
                    alpha = round(float(0.12 + 0.88 * np.sqrt(value)), 3)
                    axes.barh(row, edges[1], left=left, height=0.8, color=SERIES[0], alpha=alpha)
            mean = found.totals[column] / whole
            axes.plot([mean, mean], [row - 0.46, row + 0.46], color=INK, linewidth=1.6)
        axes.set_yticks(range(count), [gz2.in_words(answer) for answer in question.answers])
        axes.set(xlim=(0, 1), ylim=(count - 0.4, -0.6))
        axes.set_xlabel("fraction of all volunteers")
        title = f"Distribution of the fractions of {gz2.in_words(question.name)}; a line marks each mean"
        return _svg(figure, question.name, title)


def lines(
    name: str, x_name: str, y_name: str, series: Mapping[str, Points], *, diagonal: bool = False
) -> Markup:
    """Lines over [0, 1], and the diagonal of what is ideal."""
    with _figure(4.6, 3.2) as (figure, axes):
        if diagonal:
            axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=":", label="ideal")
        for index, (label, points) in enumerate(series.items()):
            x, y = zip(*points, strict=True)
            axes.plot(x, y, marker="o", markersize=4, color=SERIES[index % len(SERIES)], label=label)
        axes.set(xlim=(0, 1.02), xlabel=x_name, ylabel=y_name)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=9)
        return _svg(figure, name, f"{y_name} against {x_name}")


def by_question(name: str, label: str, values: Mapping[str, float], nominal: float) -> Markup:
    """A dot for each question, and the nominal value as a line."""
    with _figure(4.6, 3.2) as (figure, axes):
        names = list(values)
        places: npt.NDArray[np.int64] = np.arange(len(names))
        axes.axvline(nominal, color=INK, linewidth=1, linestyle=":")
        axes.plot([values[n] for n in names], places, "o", color=SERIES[0])
        axes.set_yticks(places, [gz2.in_words(n) for n in names])
        axes.invert_yaxis()
        low = min([nominal, *values.values()])
        axes.set(xlabel=label, xlim=(max(0.0, low - 0.05), 1.0))
        return _svg(figure, name, f"{label} of each question; nominal {nominal:g}")
