"""Render an evaluation as one HTML page of plots in SVG."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from gax_batch.analysis.evaluation import conditional, looks
from gax_batch.analysis.plots import bars, curves

STYLE = (
    "body{font:14px sans-serif;margin:2em;color:#222}svg,table{margin:1em}p{max-width:60em}"
    "td,th{padding:.2em .6em;text-align:right}caption{padding:.4em}.warning{color:#a01c1c;font-weight:bold}"
)
LEVEL = "0.9"
"""Level of the catalog's intervals, which the plots by question and by group show."""
NOMINAL = ("nominal", float(LEVEL))
_ASKED_NOTE = (
    "Most fractions are near 0, because few volunteers are asked most questions, and intervals contain them "
    "easily. Coverage among the galaxies for which a question was asked, and by the share of volunteers that "
    "the model expects to be asked, shows where intervals fail."
)


def page(result: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        result: Result of `gax_batch.analysis.evaluation.evaluate`.
    """
    parts = [f"<h1>Evaluation of {escape(str(result['of']))}</h1>", _warnings(result), _summary(result)]
    if "points" in result:
        parts += [
            "<h2>Errors</h2>",
            _errors(result),
            _reliability(result),
            risk_coverage(result["risk_coverage"]),
        ]
        parts += ["<h2>Intervals</h2>", f"<p>{_ASKED_NOTE}</p>", *_intervals(result)]
    if "distribution" in result:
        parts.append(_pit(result["distribution"]))
    if "points" in result:
        parts.append(_table(result))
    if "conditional" in result:
        caption = f"Conditional fractions (of those who are asked) and their {float(LEVEL):.0%} intervals"
        parts.append(_lines(caption, conditional.table(result["conditional"])))
    if "by_look" in result:
        parts += [f"<p>{escape(looks.NOTE)}</p>", _looks(result["by_look"])]
        caption = f"Errors and {float(LEVEL):.0%} intervals by look of the image"
        parts.append(_lines(caption, looks.table(result["by_look"])))
    if "clear_classes" in result:
        parts += ["<h2>Clear classes</h2>", _confusion(result["clear_classes"])]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>gax evaluate</title>'
        f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def figures(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the figures of an evaluation that has intervals and distributions, SVG by name."""
    names = ("levels", "questions", "shares", "fractions")
    drawings = {"reliability": _reliability(result), "risk-coverage": risk_coverage(result["risk_coverage"])}
    drawings |= {f"coverage-{name}": drawing for name, drawing in zip(names, _intervals(result), strict=True)}
    if "by_look" in result:
        drawings["coverage-looks"] = _looks(result["by_look"])
    return drawings | {"pit": _pit(result["distribution"])}


def _warnings(result: Mapping[str, Any]) -> str:
    lines = []
    definition = result.get("definition")
    if definition and definition["predictions"] != definition["labels"]:
        lines.append(
            f"The labels are {definition['labels']} fractions, the predictions {definition['predictions']} "
            "ones: errors and coverage include the difference between these quantities."
        )
    trained = result.get("trained_the_bundle")
    if trained and not trained["known"]:
        lines.append("The training galaxies of the bundle are unknown: some of them may be among these.")
    return "".join(f'<p class="warning">{escape(line)}</p>' for line in lines)


def _summary(result: Mapping[str, Any]) -> str:
    counts = result["galaxies"]
    lines = [f"{counts['voted']} galaxies with votes, {counts['classes']} of a clear class"]
    if "definition" in result:
        lines.append(f"definition of the predicted fractions: {result['definition']['predictions']}")
    if result.get("trained_the_bundle", {}).get("galaxies"):
        lines.append(f"omitted: {result['trained_the_bundle']['galaxies']} galaxies used to train the bundle")
    if "points" in result:
        lines.append(
            f"RMSE {result['points']['rmse']:.4f}, of which vote noise {result['vote_noise_rmse']:.4f}"
        )
        lines.append(f"negative log likelihood of the votes {result['points']['votes_nll']:.2f} nats")
    if "distribution" in result:
        found = result["distribution"]["all"]
        lines.append(
            f"continuous ranked probability score {found['crps']:.4f}, "
            f"calibration error {found['calibration_error']:.3f}"
        )
    if "largest" in result:
        lines.append(f"largest of the 37 fractions correct for {result['largest']['accuracy']:.1%}")
    if "out_of_distribution" in result:
        lines += [f"{name}: {value:.3f}" for name, value in result["out_of_distribution"].items()]
        lines.append(f"mean change under a rotation by 90 degrees {result['rotation_mean_change']:.4f}")
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _errors(result: Mapping[str, Any]) -> str:
    questions = result["points"]["questions"]
    heights = {_short(name): {"RMSE": found["rmse"]} for name, found in questions.items()}
    return bars("Error by question", "question", "RMSE", heights.items())


def _reliability(result: Mapping[str, Any]) -> str:
    points = [(found["predicted"], found["true"]) for found in result["reliability"]]
    return curves(
        "Reliability of fractions",
        "mean predicted fraction",
        "mean true fraction",
        {"by tenth of the predicted fraction": points},
        reference=("ideal", [(0, 0), (1, 1)]),
    )


def risk_coverage(errors: Mapping[str, Sequence[float]]) -> str:
    """Draw the error of increasing shares of the galaxies, beginning with the most certain ones.

    Args:
        errors: RMSE of equally spaced shares, the last of which is all galaxies, by the measure of certainty.
    """
    lines = {
        name: [((i + 1) / len(values), value) for i, value in enumerate(values)]
        for name, values in errors.items()
    }
    top = 1.1 * max(value for values in errors.values() for value in values)
    return curves("Error of the most certain", "share of galaxies", "RMSE", lines, top=top or 1.0)


def _intervals(result: Mapping[str, Any]) -> Sequence[str]:
    levels = sorted((float(level), found) for level, found in result["intervals"].items())
    lines = {
        series: [(level, found[key]) for level, found in levels if key in found]
        for series, key in (("all", "coverage"), ("where asked", "coverage_asked"))
    }
    found = result["intervals"][LEVEL]
    questions = {_short(name): _pair(values) for name, values in found["questions"].items()}
    percent = f"{float(LEVEL):.0%}"
    plots = [
        curves("Coverage of intervals", "nominal", "measured", lines, reference=("ideal", [(0, 0), (1, 1)])),
        bars(
            f"Coverage of {percent} intervals by question",
            "question",
            "coverage",
            questions.items(),
            top=1.0,
            reference=NOMINAL,
        ),
    ]
    shares = {f"{group['from']:g}-{group['to']:g}": _pair(group) for group in found.get("by_share", ())}
    tenths = {f"{(g['from'] + g['to']) / 2:.2g}": _pair(g) for g in found.get("by_fraction", ())}
    for groups, title, name in (
        (shares, "by share asked", "share of volunteers that the model expects to be asked"),
        (tenths, "by predicted fraction", "middle of the tenth of the predicted fraction"),
    ):
        if groups:
            title = f"Coverage of {percent} intervals {title}"
            plots.append(bars(title, name, "coverage", groups.items(), top=1.0, reference=NOMINAL))
    return plots


def _looks(found: Mapping[str, Any]) -> str:
    heights: dict[str, dict[str, float]] = {}
    for look, groups in found.items():
        for group in groups:
            if "coverage_asked" in group:
                heights.setdefault(looks.fifth(group), {})[look] = group["coverage_asked"]
    return bars(
        f"Coverage of {float(LEVEL):.0%} intervals by look, where asked",
        "fifth, from small, faint or blurred to large, bright or sharp",
        "coverage",
        heights.items(),
        top=1.0,
        reference=NOMINAL,
    )


def _pair(found: Mapping[str, Any]) -> dict[str, float]:
    names = {"all": "coverage", "where asked": "coverage_asked"}
    return {name: found[key] for name, key in names.items() if key in found}


def _pit(found: Mapping[str, Any]) -> str:
    count = len(found["all"]["pit"])
    groups = {
        f"{(i + 0.5) / count:.2g}": {
            name: found[key]["pit"][i]
            for name, key in (("all", "all"), ("where asked", "asked"))
            if found[key]
        }
        for i in range(count)
    }
    return bars(
        "Probability integral transform",
        "level of the true fraction in its predictive distribution",
        "share of fractions",
        groups.items(),
        reference=("calibrated", 1 / count),
    )


def _table(result: Mapping[str, Any]) -> str:
    rows: list[Sequence[str]] = [
        ("question", "galaxies", "asked", "RMSE", "coverage", "where asked", "width", "width where asked")
    ]
    for name, found in result["intervals"][LEVEL]["questions"].items():
        cells = (
            name,
            f"{found['galaxies']:,}",
            f"{found['galaxies_asked']:,}",
            f"{result['points']['questions'][name]['rmse']:.4f}",
            f"{found['coverage']:.1%}",
            f"{found['coverage_asked']:.1%}",
            f"{found['width']:.3f}",
            f"{found['width_asked']:.3f}",
        )
        rows.append(cells)
    return _lines(f"Errors and {float(LEVEL):.0%} intervals by question", rows)


def _lines(caption: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a table. The first row is the header."""
    head, *body = (
        "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row)
        for tag, row in zip(("th", *["td"] * len(rows)), rows, strict=False)
    )
    lines = "".join(f"<tr>{line}</tr>" for line in (head, *body))
    return f"<table><caption>{escape(caption)}</caption>{lines}</table>"


def _short(question: str) -> str:
    """Return the number of a question, such as t04."""
    return question.partition("_")[0]


def _confusion(found: Mapping[str, Any]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in found["classes"])
    rows = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{count}</td>' for count in row)}</tr>"
        for name, row in zip(found["classes"], found["confusion"], strict=True)
    )
    caption = f"true class (rows) against predicted: {found['accuracy']:.1%} correct"
    return f"<table><caption>{caption}</caption><tr><th></th>{head}</tr>{rows}</table>"
