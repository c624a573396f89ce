"""The figures of the report, as SVG."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from gax_batch import gz2
from gax_batch.analysis.evaluation import page
from gax_batch.analysis.plots import Points, Row, bars, curves, rows
from gax_batch.viewer.report.gather import FRACTION_BINS, SKY_CELLS, SnapshotSummary
from gax_batch.viewer.sky_map import whole_sky


def rates(runs: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw the throughput of each run, in the order of time."""
    groups = [(_start(run), {"cutouts/s": run["rate"] or 0.0}) for run in runs]
    return _markup(bars("Throughput", "start of the run", "cutouts/s", groups))


def stages(runs: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw the seconds of each run by stage, stacked."""
    groups = [(_start(run), run["stages"]) for run in runs]
    return _markup(bars("Time by stage", "start of the run", "seconds", groups, stacked=True))


def sky(found: SnapshotSummary, layer: str) -> Markup:
    """Draw a map of the whole sky.

    Args:
        found: Summary of the snapshot, with at least one galaxy that has a position.
        layer: `density`, galaxies per square degree, or `uncertainty`, the mean width of their intervals.
    """
    count, total = found.sky
    filled = np.where(count > 0, count, np.nan)
    if layer == "uncertainty":
        return _markup(whole_sky(total / filled, "mean width of the 90 % intervals"))
    area = 4 * np.pi * np.degrees(1) ** 2 / SKY_CELLS
    return _markup(whole_sky(filled / area, "galaxies per square degree"))


def distribution(found: SnapshotSummary, question: gz2.Question) -> Markup:
    """Draw the distribution of a question's cumulative fractions: a strip for each answer, and its mean."""
    edges = np.linspace(0, 1, FRACTION_BINS + 1)
    galaxies = max(found.histogram[0].sum(), 1)
    lines = []
    for column, answer in enumerate(map(gz2.in_words, question.answers), question.start):
        share = found.histogram[column] / galaxies
        opacity = 0.12 + 0.88 * np.sqrt(share)
        cells = [(edges[i], edges[i + 1], opacity[i]) for i in np.flatnonzero(share)]
        mean = float(found.totals[column] / galaxies)
        lines.append(Row(answer, f"{answer}: mean {mean:.3f}", cells, mean))
    title = f"Distribution of the fractions of {gz2.in_words(question.name)}; a line marks each mean"
    return _markup(rows(title, "fraction of all volunteers", lines))


def coverage(levels: Points) -> Markup:
    """Draw the measured against the nominal coverage of intervals."""
    ideal = ("ideal", [(0.0, 0.0), (1.0, 1.0)])
    return _markup(
        curves("Coverage of intervals", "nominal", "measured", {"intervals": levels}, reference=ideal)
    )


def coverage_by_question(held: Mapping[str, float]) -> Markup:
    """Draw the coverage of the 90 % intervals of each question.

    Args:
        held: Coverage by the name of the question.
    """
    lines = [
        Row(gz2.in_words(name), f"{gz2.in_words(name)}: {value:.1%}", [(0.0, value, 1.0)])
        for name, value in held.items()
    ]
    title = "Coverage of 90 % intervals by question"
    return _markup(rows(title, "coverage of 90 % intervals", lines, reference=("nominal", 0.9)))


def risk_coverage(errors: Mapping[str, Sequence[float]]) -> Markup:
    """Draw the error of the most certain galaxies; see `gax_batch.analysis.evaluation.page.risk_coverage`."""
    return _markup(page.risk_coverage(errors))


def _start(run: Mapping[str, Any]) -> str:
    """Return the month, day, hour and minute at which a run started."""
    return str(run["started"][5:16]).replace("T", " ")


def _markup(svg: str) -> Markup:
    return Markup(svg)  # noqa: S704 (the plots escape all text)
