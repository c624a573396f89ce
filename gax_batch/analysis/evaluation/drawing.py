"""Plots as SVG: lines over 0 to 1, and groups of bars."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, MARGIN, HEAD = 480, 300, 58, 62
COLORS = ("#1f5fa8", "#c2571a", "#3a8f4d", "#7a4fa0")
REFERENCE = "#767676"
# Four ticks divide each of these into numbers of few digits.
_STEPS = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)
Points = Sequence[tuple[float, float]]


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
    body, named, top = [], dict(lines), _round_up(top)
    if reference is not None:
        named[reference[0]] = reference[1]
    for index, (name, points) in enumerate(named.items()):
        places = [(_across(x), _up(y / top)) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        if name not in lines:
            body.append(_dashed(path))
            continue
        color = COLORS[index % len(COLORS)]
        body.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        body += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"><title>{escape(name)}: '
            f"{value[0]:.3g}, {value[1]:.3g}</title></circle>"
            for (x, y), value in zip(places, points, strict=True)
        ]
    body += [
        f'<text x="{_across(x):.1f}" y="{_up(0) + 15:.1f}" text-anchor="middle">{x:g}</text>'
        for x in (0, 0.25, 0.5, 0.75, 1)
    ]
    return _plot(title, x_name, y_name, body, top, list(lines), reference and reference[0])


def bars(
    title: str,
    x_name: str,
    y_name: str,
    groups: Mapping[str, Mapping[str, float]],
    *,
    top: float | None = None,
    reference: tuple[str, float] | None = None,
) -> str:
    """Draw groups of bars.

    Args:
        title: Title of the plot.
        x_name: Name of the horizontal axis.
        y_name: Name of the vertical axis.
        groups: For each group, the height of each bar by its series' name; a series may lack a bar.
        top: Largest value of the vertical axis, which ends at the next round number; that of the highest bar
            if None.
        reference: Name and height of a dashed gray line.

    Returns:
        An SVG element.
    """
    series = list(dict.fromkeys(name for group in groups.values() for name in group))
    heights = [value for group in groups.values() for value in group.values()]
    limit = _round_up(top if top is not None else max(*heights, reference[1] if reference else 0, 1e-9))
    step = 1 / max(1, len(groups))
    width = 0.8 * step / max(1, len(series)) * (_across(1) - _across(0))
    body = []
    for index, (group, values) in enumerate(groups.items()):
        left = _across((index + 0.1) * step)
        for place, name in enumerate(series):
            if name in values:
                y = _up(values[name] / limit)
                body.append(
                    f'<rect x="{left + place * width:.1f}" y="{y:.1f}" width="{max(width - 1, 1):.1f}" '
                    f'height="{_up(0) - y:.1f}" fill="{COLORS[place % len(COLORS)]}"><title>{escape(group)}, '
                    f"{escape(name)}: {values[name]:g}</title></rect>"
                )
        center = _across((index + 0.5) * step)
        body.append(
            f'<text x="{center:.1f}" y="{_up(0) + 15:.1f}" text-anchor="middle">{escape(group)}</text>'
        )
    if reference is not None:
        y = _up(reference[1] / limit)
        body.append(_dashed(f"{_across(0):.1f},{y:.1f} {_across(1):.1f},{y:.1f}"))
    return _plot(title, x_name, y_name, body, limit, series, reference and reference[0])


def _round_up(value: float) -> float:
    """Return the next number of which a quarter has few digits."""
    scale = 10 ** math.floor(math.log10(value))
    return float(next(step * scale for step in _STEPS if step * scale >= value * (1 - 1e-9)))


def _across(share: float) -> float:
    return MARGIN + share * (WIDTH - MARGIN - 16)


def _up(share: float) -> float:
    bottom = HEIGHT - MARGIN
    return bottom - share * (bottom - HEAD)


def _dashed(path: str) -> str:
    style = f'fill="none" stroke="{REFERENCE}" stroke-width="1.5" stroke-dasharray="5 4"'
    return f'<polyline points="{path}" {style}/>'


def _plot(
    title: str,
    x_name: str,
    y_name: str,
    body: Sequence[str],
    top: float,
    series: Sequence[str],
    reference: str | None,
) -> str:
    left, right, low, high = _across(0), _across(1), _up(0), _up(1)
    ticks = [
        f'<text x="{left - 6:.1f}" y="{_up(share) + 4:.1f}" text-anchor="end">{share * top:.2g}</text>'
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" font-size="11" role="img" aria-label="{escape(title)}">'
        f'<text x="{WIDTH / 2}" y="18" text-anchor="middle" font-size="14">{escape(title)}</text>'
        f"{_legend(series, reference)}{''.join(body)}"
        f'<path d="M{left:.1f} {high:.1f}V{low:.1f}H{right:.1f}" fill="none" stroke="#888"/>{"".join(ticks)}'
        f'<text x="{(left + right) / 2:.1f}" y="{HEIGHT - 10}" text-anchor="middle">{escape(x_name)}</text>'
        f'<text transform="translate(12,{(low + high) / 2:.1f})rotate(-90)" text-anchor="middle">'
        f"{escape(y_name)}</text></svg>"
    )


def _legend(series: Sequence[str], reference: str | None) -> str:
    names = [(name, COLORS[i % len(COLORS)]) for i, name in enumerate(series)]
    if reference is not None:
        names.append((reference, REFERENCE))
    if len(names) < 2:
        return ""
    parts, left = [], float(MARGIN)
    for name, color in names:
        parts.append(
            f'<rect x="{left:.1f}" y="32" width="10" height="10" fill="{color}"/>'
            f'<text x="{left + 14:.1f}" y="41">{escape(name)}</text>'
        )
        left += 34 + 6 * len(name)
    return "".join(parts)
