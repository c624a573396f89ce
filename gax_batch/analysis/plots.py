"""Plots as SVG: curves, groups of bars, and rows of cells.

Text and lines have the colors of the page (`--ink`, `--soft`, `--series-0` to `--series-5`), so that they
follow its light or dark scheme. In a page without these variables, the colors of this module are used.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 400, 270
INK, SOFT = "var(--ink, #222222)", "var(--soft, #5a6270)"
SERIES = ("#2b62a8", "#b5531c", "#2e7d4f", "#7d4fa3", "#8a6d00", "#a13764")
COLORS = tuple(f"var(--series-{i}, {color})" for i, color in enumerate(SERIES))
_CHARACTER = 6.0
_LABELS, _ROW = 112, 22
_WIDEST_GROUP = 80.0
_QUARTERS = (0, 0.25, 0.5, 0.75, 1)
# Divided by four ticks, each of these gives numbers of few digits.
_STEPS = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)
_VARIABLE = re.compile(r"var\(--[\w-]+, ([^)]+)\)")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of `rows`.

    Attributes:
        label: Text to the left of the row.
        note: Text that appears when the pointer rests on the row.
        cells: Left end, right end and opacity of each cell, all from 0 to 1.
        mark: Position of a vertical line, from 0 to 1; None for no line.
    """

    label: str
    note: str
    cells: Sequence[tuple[float, float, float]]
    mark: float | None = None


@dataclass(frozen=True, slots=True)
class _Frame:
    """The rectangle between the axes, in pixels."""

    top: float
    bottom: float = HEIGHT - 44
    left: float = 54
    right: float = WIDTH - 14

    def x(self, share: float) -> float:
        return self.left + share * (self.right - self.left)

    def y(self, share: float) -> float:
        return self.bottom - share * (self.bottom - self.top)


def curves(
    title: str,
    x_name: str,
    y_name: str,
    lines: Mapping[str, Points],
    *,
    top: float = 1.0,
    reference: tuple[str, Points] | None = None,
) -> str:
    """Draw lines with points.

    Args:
        title: Title of the plot.
        x_name: Name of the horizontal axis, from 0 to 1.
        y_name: Name of the vertical axis, from 0 to `top`.
        lines: Points of each line by its name.
        top: Largest value of the vertical axis, which ends at the next round number.
        reference: Name and points of a dashed gray line.

    Returns:
        An SVG element.
    """
    legend, frame = _legend(list(lines), reference and reference[0])
    limit = _round_up(top)
    body = []
    for index, (name, points) in enumerate(lines.items()):
        places = [(frame.x(x), frame.y(y / limit)) for x, y in points]
        color = COLORS[index % len(COLORS)]
        body.append(f'<polyline points="{_joined(places)}" fill="none" stroke="{color}" stroke-width="2"/>')
        body += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"><title>{escape(name)}: '
            f"{value[0]:.3g}, {value[1]:.3g}</title></circle>"
            for (x, y), value in zip(places, points, strict=True)
        ]
    if reference is not None:
        body.append(_dashed([(frame.x(x), frame.y(y / limit)) for x, y in reference[1]]))
    body += [_text(frame.x(x), frame.bottom + 15, f"{x:g}") for x in _QUARTERS]
    return _plot(title, x_name, y_name, frame, limit, [*legend, *body])


def bars(
    title: str,
    x_name: str,
    y_name: str,
    groups: Collection[tuple[str, Mapping[str, float]]],
    *,
    top: float | None = None,
    reference: tuple[str, float] | None = None,
    stacked: bool = False,
) -> str:
    """Draw groups of bars.

    Args:
        title: Title of the plot.
        x_name: Name of the horizontal axis.
        y_name: Name of the vertical axis.
        groups: Name of each group, and the height of each bar by its series' name. A series may lack a
            bar.
        top: Largest value of the vertical axis, which ends at the next round number; None for that of the
            highest bar.
        reference: Name and height of a dashed gray line.
        stacked: Whether the bars of a group stand on each other instead of side by side.

    Returns:
        An SVG element.
    """
    series = list(dict.fromkeys(name for _, group in groups for name in group))
    heights = [sum(g.values()) if stacked else max(g.values(), default=0.0) for _, g in groups]
    limit = _round_up(top if top is not None else max(*heights, reference[1] if reference else 0, 1e-9))
    legend, frame = _legend(series, reference and reference[0])
    step = min((frame.right - frame.left) / max(1, len(groups)), _WIDEST_GROUP)
    width = 0.8 * step / (1 if stacked else max(1, len(series)))
    body = []
    for index, (group, values) in enumerate(groups):
        left, base = frame.left + (index + 0.1) * step, 0.0
        for place, name in enumerate(series):
            if name not in values:
                continue
            x = left if stacked else left + place * width
            low, high = frame.y(base / limit), frame.y((base + values[name]) / limit)
            body.append(
                f'<rect x="{x:.1f}" y="{high:.1f}" width="{max(width - 1, 1):.1f}" '
                f'height="{low - high:.1f}" fill="{COLORS[place % len(COLORS)]}">'
                f"<title>{escape(group)}, {escape(name)}: {values[name]:g}</title></rect>"
            )
            base += values[name] if stacked else 0.0
    body += _group_names([group for group, _ in groups], frame, step)
    if reference is not None:
        y = frame.y(reference[1] / limit)
        body.append(_dashed([(frame.left, y), (frame.right, y)]))
    return _plot(title, x_name, y_name, frame, limit, [*legend, *body])


def rows(title: str, x_name: str, lines: Sequence[Row], *, reference: tuple[str, float] | None = None) -> str:
    """Draw rows of cells over a horizontal axis from 0 to 1.

    Args:
        title: Title of the plot for screen readers. It is not drawn.
        x_name: Name of the horizontal axis.
        lines: Rows from top to bottom.
        reference: Name and position of a dashed gray line.

    Returns:
        An SVG element.
    """
    legend, frame = _legend([], reference and reference[0], head=4)
    frame = _Frame(frame.top, frame.top + _ROW * len(lines), _LABELS)
    body = []
    for index, row in enumerate(lines):
        y = frame.top + _ROW * (index + 0.5)
        marks = [
            f'<rect x="{frame.x(left):.1f}" y="{y - 8:.1f}" width="{frame.x(right) - frame.x(left):.1f}" '
            f'height="16" fill="{COLORS[0]}" fill-opacity="{opacity:.3g}"/>'
            for left, right, opacity in row.cells
        ]
        if row.mark is not None:
            marks.append(
                f'<path d="M{frame.x(row.mark):.1f} {y - 10:.1f}v20" stroke="{INK}" stroke-width="2"/>'
            )
        label = _text(frame.left - 6, y + 4, row.label, "end")
        body.append(f"<g><title>{escape(row.note)}</title>{label}{''.join(marks)}</g>")
    if reference is not None:
        x = frame.x(reference[1])
        body.append(_dashed([(x, frame.top), (x, frame.bottom)]))
    body += [_text(frame.x(x), frame.bottom + 15, f"{x:g}") for x in _QUARTERS]
    body += [_axes(frame), _text(frame.x(0.5), frame.bottom + 32, x_name)]
    return _svg(title, frame.bottom + 40, [*legend, *body])


def standalone(svg: str) -> str:
    """Return an SVG element as the text of a file: with its namespace, and without variables of a page."""
    return _VARIABLE.sub(r"\1", svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)) + "\n"


def _round_up(value: float) -> float:
    """Return the next number whose quarter has few digits."""
    scale = 10 ** math.floor(math.log10(value))
    return float(next(step * scale for step in _STEPS if step * scale >= value * (1 - 1e-9)))


def _legend(series: Sequence[str], reference: str | None, head: float = 26) -> tuple[list[str], _Frame]:
    """Return the legend, in as many lines as it needs, and the frame below it."""
    names = [(name, COLORS[i % len(COLORS)]) for i, name in enumerate(series)]
    if reference is not None:
        names.append((reference, SOFT))
    if len(names) < 2 and series:
        return [], _Frame(head + 8)
    parts, left, top = [], 54.0, head
    for name, color in names:
        width = 28 + _CHARACTER * len(name)
        if left > 54 and left + width > WIDTH:
            left, top = 54.0, top + 16
        parts.append(f'<rect x="{left:.1f}" y="{top:.1f}" width="10" height="10" fill="{color}"/>')
        parts.append(_text(left + 14, top + 9, name, "start"))
        left += width
    return parts, _Frame(top + 22 if names else head)


def _group_names(names: Sequence[str], frame: _Frame, step: float) -> list[str]:
    """Return the names below the bars, without those that would overlap."""
    longest = 5.5 * max(map(len, names), default=0) + 2
    every = max(1, math.ceil(longest / step))
    return [
        _text(frame.left + (index + 0.5) * step, frame.bottom + 15, name)
        for index, name in enumerate(names)
        if index % every == 0
    ]


def _plot(title: str, x_name: str, y_name: str, frame: _Frame, top: float, body: Sequence[str]) -> str:
    ticks = [_text(frame.left - 6, frame.y(share) + 4, f"{share * top:.3g}", "end") for share in _QUARTERS]
    middle = (frame.top + frame.bottom) / 2
    names = [
        f'<text x="{WIDTH / 2:g}" y="16" text-anchor="middle" font-size="13" font-weight="600">'
        f"{escape(title)}</text>",
        _text(frame.x(0.5), HEIGHT - 10, x_name),
        f'<text transform="translate(12,{middle:.1f})rotate(-90)" text-anchor="middle">'
        f"{escape(y_name)}</text>",
    ]
    return _svg(title, HEIGHT, [*names, *body, _axes(frame), *ticks])


def _svg(title: str, height: float, body: Sequence[str]) -> str:
    return (
        f'<svg width="{WIDTH}" height="{height:g}" viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="11" fill="{INK}">'
        f"{''.join(body)}</svg>"
    )


def _axes(frame: _Frame) -> str:
    path = f"M{frame.left:.1f} {frame.top:.1f}V{frame.bottom:.1f}H{frame.right:.1f}"
    return f'<path d="{path}" fill="none" stroke="{SOFT}"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _joined(places: Points) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _dashed(places: Points) -> str:
    return (
        f'<polyline points="{_joined(places)}" fill="none" stroke="{SOFT}" stroke-width="1.5" '
        'stroke-dasharray="5 4"/>'
    )
