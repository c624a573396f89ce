"""One page of plots of an evaluation: HTML with drawings in SVG, which every browser shows."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, MARGIN = 420, 280, 44
STYLE = "body{font:14px sans-serif;margin:2em}svg,table{margin:1em}td,th{padding:.2em .6em;text-align:right}"
COLORS = ("#1f5fa8", "#c2571a", "#3a8f4d", "#7a4fa0")
Points = Sequence[tuple[float, float]]


def page(result: Mapping[str, Any]) -> str:
    """The page.

    Args:
        result: of `gax_batch.evaluation.evaluate`.
    """
    parts = [f"<h1>Evaluation of {escape(str(result['of']))}</h1>", _summary(result)]
    if "points" in result:
        parts += [_errors(result), _reliability(result), _risk(result), _coverage(result)]
    if "clear_classes" in result:
        parts.append(_confusion(result["clear_classes"]))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>gax evaluate</title>'
        f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def curves(title: str, x_name: str, y_name: str, lines: Mapping[str, Points], top: float) -> str:
    """A plot of lines; x from 0 to 1, y from 0 to `top`."""

    def at(x: float, y: float) -> str:
        return (
            f"{MARGIN + x * (WIDTH - 2 * MARGIN):.1f},{HEIGHT - MARGIN - y / top * (HEIGHT - 2 * MARGIN):.1f}"
        )

    body = []
    for index, (name, points) in enumerate(lines.items()):
        color, path = COLORS[index % len(COLORS)], " ".join(at(x, y) for x, y in points)
        body.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        body += [
            f'<circle cx="{p.split(",")[0]}" cy="{p.split(",")[1]}" r="3" fill="{color}"/>'
            for p in path.split()
        ]
        body.append(
            f'<text x="{MARGIN + 8}" y="{MARGIN + 14 + 15 * index}" fill="{color}">{escape(name)}</text>'
        )
    ticks = [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)]
    for x, share in ticks:
        left, low = at(x, 0).split(",")
        body.append(f'<text x="{left}" y="{float(low) + 15}" text-anchor="middle">{x:g}</text>')
        edge, height = at(0, share * top).split(",")
        body.append(f'<text x="{float(edge) - 5}" y="{height}" text-anchor="end">{share * top:.3g}</text>')
    return _drawing(title, x_name, y_name, body)


def bars(title: str, y_name: str, values: Mapping[str, float]) -> str:
    """A plot of one bar for each name."""
    top = max(*values.values(), 1e-9)
    step = (WIDTH - 2 * MARGIN) / max(1, len(values))
    body = []
    for index, (name, value) in enumerate(values.items()):
        height = value / top * (HEIGHT - 2 * MARGIN)
        left = MARGIN + index * step
        body.append(
            f'<rect x="{left + 2:.1f}" y="{HEIGHT - MARGIN - height:.1f}" width="{step - 4:.1f}" '
            f'height="{height:.1f}" fill="{COLORS[0]}"><title>{escape(name)}: {value:g}</title></rect>'
            f'<text x="{left + step / 2:.1f}" y="{HEIGHT - MARGIN + 14}" text-anchor="middle">'
            f"{escape(name.split('_')[0])}</text>"
        )
    body.append(f'<text x="{MARGIN - 5}" y="{MARGIN}" text-anchor="end">{top:.3g}</text>')
    return _drawing(title, "question", y_name, body)


def _drawing(title: str, x_name: str, y_name: str, body: Sequence[str]) -> str:
    bottom = HEIGHT - MARGIN
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" font-size="11" role="img" aria-label="{escape(title)}">'
        f'<text x="{WIDTH / 2}" y="18" text-anchor="middle" font-size="13">{escape(title)}</text>'
        f'<path d="M{MARGIN} {MARGIN}V{bottom}H{WIDTH - MARGIN}" fill="none" stroke="#888"/>{"".join(body)}'
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_name)}</text>'
        f'<text transform="translate(12,{HEIGHT / 2})rotate(-90)" text-anchor="middle">'
        f"{escape(y_name)}</text></svg>"
    )


def _summary(result: Mapping[str, Any]) -> str:
    lines = [
        f"{result['galaxies']['voted']} galaxies with votes, {result['galaxies']['classes']} of a clear class"
    ]
    if "points" in result:
        lines.append(
            f"RMSE {result['points']['rmse']:.4f}, of which vote noise {result['vote_noise_rmse']:.4f}"
        )
        lines.append(f"negative log likelihood of the votes {result['points']['votes_nll']:.2f} nats")
    if "out_of_distribution" in result:
        lines += [f"{name}: {value:.3f}" for name, value in result["out_of_distribution"].items()]
        lines.append(f"mean change under a turn by 90 degrees {result['rotation_mean_change']:.4f}")
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _errors(result: Mapping[str, Any]) -> str:
    questions = result["points"]["questions"]
    return bars("Error by question", "RMSE", {name: q["rmse"] for name, q in questions.items()})


def _reliability(result: Mapping[str, Any]) -> str:
    points = sorted((float(level), found["coverage"]) for level, found in result["intervals"].items())
    lines = {"measured": points, "ideal": [(0.0, 0.0), (1.0, 1.0)]}
    return curves("Coverage of intervals", "nominal", "measured", lines, 1.0)


def _risk(result: Mapping[str, Any]) -> str:
    lines = {
        name: [((i + 1) / len(values), value) for i, value in enumerate(values)]
        for name, values in result["risk_coverage"].items()
    }
    top = 1.1 * max(value for values in result["risk_coverage"].values() for value in values)
    return curves("Error of the most certain", "share of galaxies", "RMSE", lines, top or 1.0)


def _coverage(result: Mapping[str, Any]) -> str:
    questions = result["intervals"]["0.9"]["questions"]
    return bars("Coverage of 90 % intervals", "coverage", {n: q["coverage"] for n, q in questions.items()})


def _confusion(found: Mapping[str, Any]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in found["classes"])
    rows = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{count}</td>' for count in row)}</tr>"
        for name, row in zip(found["classes"], found["confusion"], strict=True)
    )
    caption = f"true class (rows) against predicted: {found['accuracy']:.1%} right"
    return f"<table><caption>{caption}</caption><tr><th></th>{head}</tr>{rows}</table>"
