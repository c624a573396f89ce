"""Generate the reference pages from the declarations in the code.

A page contains a line `<!-- generated: NAME -->`. The extension replaces it by the Markdown of
`GENERATORS[NAME]` while Sphinx reads the page. Every generator returns the same text for the same code.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from typer.main import get_command

from benchmarks.page import sections
from gax_batch import gz2
from gax_batch.catalog.schema import (
    ANSWER_QUANTITIES,
    COLUMNS,
    CONDITIONAL_QUANTITIES,
    QUESTION_QUANTITIES,
    REJECT_COLUMNS,
    Column,
    column_table,
)
from gax_batch.cli import app
from gax_batch.models.bundle import load_bundle
from gax_batch.rejects import MEANING
from gax_batch.runner.settings import RunSettings
from training.card import NAMES

MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
# What Arrow calls the types of NumPy.
_TYPES = {"float": "float32", "double": "float64"}
_BOUNDS = {"ge": "at least", "gt": "greater than", "le": "at most", "lt": "less than"}


def table(head: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with escaped vertical bars."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def commands() -> str:
    """Return one section for each command of `gax`: its help, and a table of its options."""
    return "\n\n".join(_sections("gax", get_command(app), level=2))


def _sections(path: str, command: Any, level: int) -> Iterator[str]:
    if path != "gax":
        yield f"{'#' * level} `{path}`"
        level += 1
    yield _help(command.help or "")
    yield from _options(command, path)
    for name, below in getattr(command, "commands", {}).items():
        yield from _sections(f"{path} {name}", below, level)


def _help(text: str) -> str:
    """Return the help as Markdown; its example becomes a code block."""
    text, _, example = text.partition("Example: ")
    paragraphs = [_markdown(" ".join(part.split())) for part in text.split("\n\n")]
    if example:
        first, *more = example.strip().split("\n\n")
        paragraphs.append(f"```bash\n{' '.join(first.split())}\n```")
        paragraphs += [_markdown(" ".join(part.split())) for part in more]
    return "\n\n".join(part for part in paragraphs if part)


def _options(command: Any, path: str) -> Iterator[str]:
    context = typer.Context(command, info_name=path)
    panels: dict[str, list[list[str]]] = {}
    for option in command.params:
        panel = getattr(option, "rich_help_panel", None)
        title = panel if isinstance(panel, str) else ""
        if not getattr(option, "hidden", False):
            panels.setdefault(title, []).append(_option(option, context))
    for title, rows in panels.items():
        if title:
            yield f"**{title}**"
        yield table(["option", "default", "meaning"], rows)


def _option(option: Any, context: typer.Context) -> list[str]:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    if option.param_type_name == "argument":
        names = f"`{option.name.upper()}`"
    flag = getattr(option, "is_flag", False) or option.param_type_name == "argument"
    kind = "" if flag else f" `{option.display_type(context)}`"
    shown = option.show_default
    if option.required:
        default = "required"
    elif isinstance(shown, str):
        default = shown
    elif option.default is None or option.default is False or shown is False:
        default = ""
    else:
        default = f"`{option.default}`"
    return [names + kind, default, _markdown(option.help or "")]


def settings() -> str:
    """Return one table of the settings for each panel."""
    panels: dict[str, list[list[str]]] = {}
    for name, field in RunSettings.model_fields.items():
        row = [f"`{name}`", _kind(field), _default(field), _markdown(field.description or "")]
        panels.setdefault(_metadata(field)["panel"], []).append(row)
    head = ["setting", "type", "default", "meaning"]
    return "\n\n".join(f"## {panel}\n\n{table(head, rows)}" for panel, rows in panels.items())


def _metadata(field: FieldInfo) -> Mapping[str, Any]:
    extra = field.json_schema_extra
    return extra if isinstance(extra, dict) else {}


def _kind(field: FieldInfo) -> str:
    kinds = ", ".join(f"`{name}`" for name in _names(field.annotation))
    if get_origin(field.annotation) is tuple:
        kinds = f"list of {kinds}"
    limits = [(getattr(rule, key, None), words) for rule in field.metadata for key, words in _BOUNDS.items()]
    return "; ".join([kinds, *(f"{words} {limit:,}" for limit, words in limits if limit is not None)])


def _names(annotation: Any) -> list[str]:
    """Return the names of the types, or the values, that a setting can have."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return [str(value) for value in inner]
    if origin in (Union, UnionType):
        return [name for kind in inner if kind is not NoneType for name in _names(kind)]
    if origin is dict:
        return ["mapping"]
    return _names(inner[0]) if origin in (tuple, Annotated) else [annotation.__name__]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value == {}:
        return str(_metadata(field).get("absent", "none"))
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def columns() -> str:
    """Return the columns of the galaxies, with `<answer>` and `<question>` for the repeated ones."""
    kept = list(_general(COLUMNS))
    head = ["column", "type", "unit", "meaning"]
    parts = [table(head, [_column(c) for c in kept])]
    derived = [
        (f"<answer>_{name}", "float", "", ucd, text) for name, (ucd, text) in CONDITIONAL_QUANTITIES.items()
    ]
    parts += [
        "## Derived columns",
        "`gax publish --conditional` and `Snapshot.conditional` derive these columns. A "
        "catalog does not store them.",
        table(head, [_column(c) for c in derived]),
    ]
    parts += ["## Rejects", table(head, [_column(c) for c in column_table(REJECT_COLUMNS)])]
    return "\n\n".join(parts)


def _general(columns: Sequence[Column]) -> Iterator[tuple[str, str, str, str, str]]:
    first = {f"{gz2.ANSWERS[0]}_{name}": "<answer>" for name in ANSWER_QUANTITIES}
    first |= {f"{gz2.QUESTION_NAMES[0]}_{name}": "<question>" for name in QUESTION_QUANTITIES}
    repeated = {f"{a}_{name}" for a in gz2.ANSWERS for name in ANSWER_QUANTITIES}
    repeated |= {f"{q}_{name}" for q in gz2.QUESTION_NAMES for name in QUESTION_QUANTITIES}
    for name, kind, unit, ucd, text in column_table(columns):
        if name in first:
            quantity = name.removeprefix(gz2.ANSWERS[0]).removeprefix(gz2.QUESTION_NAMES[0])
            yield f"{first[name]}{quantity}", kind, unit, ucd, text.partition(": ")[2]
        elif name not in repeated:
            yield name, kind, unit, ucd, text


def _column(row: tuple[str, str, str, str, str]) -> list[str]:
    name, kind, unit, ucd, text = row
    return [f"`{name}`", _TYPES.get(kind, kind), unit, f"{_markdown(text)} (UCD `{ucd}`)"]


def rejects() -> str:
    """Return the reject reasons with their meanings."""
    return table(
        ["reason", "meaning"], [[f"`{reason}`", _markdown(text)] for reason, text in MEANING.items()]
    )


def questions() -> str:
    """Return the decision tree of Galaxy Zoo 2: each question, who is asked it, and its answers."""
    rows = [
        [
            f"`{question.name}`",
            "everybody" if question.parent is None else f"who answered `{gz2.ANSWERS[question.parent]}`",
            ", ".join(f"`{answer}`" for answer in question.answers),
        ]
        for question in gz2.QUESTIONS
    ]
    return table(["question", "asked of", "answers"], rows)


def bundle_models() -> str:
    """Return the errors of the shipped bundle's models."""
    head = [
        "",
        "RMSE, galaxies with 37 fractions",
        "RMSE, all known fractions",
        "negative log likelihood of the votes, nats",
        "five clear classes",
    ]
    rows = [
        [
            NAMES.get(name, name),
            f"{point['rmse']:.4f}",
            f"{point['rmse_of_some_fractions']:.4f}",
            f"{point['votes_nll']:.2f}",
            percent(point["class_accuracy"]),
        ]
        for name, point in _metrics()["models"].items()
    ]
    return table(head, rows)


def bundle_intervals() -> str:
    """Return the coverage of the shipped bundle's intervals, by level and by question."""
    intervals = _metrics()["intervals"]
    levels = [
        [f"{100 * float(level):.0f} %", *_coverage(found), f"{found['width']:.3f}"]
        for level, found in intervals.items()
    ]
    asked = [[gz2.in_words(name), *_coverage(found)] for name, found in intervals["0.9"]["questions"].items()]
    return "\n\n".join(
        [
            table(
                ["interval", "coverage, all galaxies", "coverage, galaxies that were asked", "mean width"],
                levels,
            ),
            "The 90 % intervals by question:",
            table(["question", "coverage, all galaxies", "coverage, galaxies that were asked"], asked),
        ]
    )


def bundle_summary() -> str:
    """Return what the shipped bundle was measured on, and its other numbers, in sentences."""
    found, manifest = _metrics(), load_bundle().manifest
    counts, complete = found["galaxies"], found["models"]["blend"]["galaxies"]
    every, asked = _coverage(found["intervals"]["0.9"])
    learned = manifest["training"]["galaxies"]["all"]
    auc, turned = found["out_of_distribution"]["auc"], found["rotation_mean_change"]
    return "\n\n".join(
        [
            f"The bundle learned from {learned:,} galaxies. All numbers are measured on {found['sample']}: "
            f"{counts['voted']:,} galaxies with fractions, {complete:,} of them with all 37, and "
            f"{counts['classes']:,} galaxies of a clear class.",
            f"The catalog's 90 % intervals contain {every} of the fractions, and {asked} of the fractions of "
            "questions that a galaxy was asked. The out-of-distribution score separates galaxies from stars, "
            f"blank sky, noise, cosmic rays and artifacts with an AUC of {auc:.3f}. A rotation by 90 degrees "
            f"changes the fractions by {turned:.4f} on average.",
        ]
    )


def measured() -> str:
    """Return a table for each benchmark that `make bench` has kept, with the machines side by side."""
    return "\n\n".join(f"### {title}\n\n{table(head, rows)}" for title, head, rows in sections())


def percent(share: float) -> str:
    """Return a fraction as percent with one decimal."""
    return f"{100 * share:.1f} %"


def _coverage(found: Mapping[str, float]) -> list[str]:
    return [percent(found["coverage"]), percent(found["coverage_asked"])]


def _metrics() -> Mapping[str, Any]:
    metrics: Mapping[str, Any] = load_bundle().manifest["metrics"]
    return metrics


def _markdown(text: str) -> str:
    """Return plain text as Markdown: markup characters are escaped, and quoted `NAME=VALUE` becomes code."""
    pieces = re.sub(r"'([^' ]+=[^' ]+)'", r"`\1`", text).split("`")
    pieces[::2] = [re.sub(r"([*<]|(?<!\w)_)", r"\\\1", piece) for piece in pieces[::2]]
    return "`".join(pieces)


GENERATORS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "settings": settings,
    "columns": columns,
    "rejects": rejects,
    "questions": questions,
    "measured": measured,
    "bundle_models": bundle_models,
    "bundle_intervals": bundle_intervals,
    "bundle_summary": bundle_summary,
}


def fill(text: str) -> str:
    """Replace every mark of a page by what its generator returns."""
    return MARK.sub(lambda found: GENERATORS[found[1]](), text)


def _read(_app: Any, _page: str, source: list[str]) -> None:
    source[0] = fill(source[0])


def setup(sphinx: Any) -> dict[str, bool]:
    """Register the extension."""
    sphinx.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
