"""What the README and the site say is what the code does."""

import ast
import re
from collections.abc import Iterator
from typing import Any

import generated
import pytest
from doc_pages import PAGES, README, ROOT, SPANISH, TUTORIAL, page, shown_commands
from typer.main import get_command

from gax_batch.catalog.schema import COLUMNS, Flag
from gax_batch.catalog.snapshots import Catalog
from gax_batch.cli import app
from gax_batch.gz2 import ANSWERS, DEFINITION, QUESTION_NAMES, in_words
from gax_batch.imaging.cutout import ImageFlag
from gax_batch.imaging.limits import ImageLimits, ListingLimits
from gax_batch.models.bundle import load_bundle
from gax_batch.rejects import MEANING


def test_every_page_names_generators_that_exist_and_every_generator_has_a_page():
    named = [name for text in PAGES.values() for name in generated.MARK.findall(text)]
    assert sorted(named) == sorted(generated.GENERATORS)


def test_every_command_and_option_is_in_the_reference():
    text = generated.commands()

    def check(path: str, command: Any) -> None:
        assert path == "gax" or f"# `{path}`\n" in text
        for option in command.params:
            assert option.hidden or f"`{option.opts[0]}`" in text or f"`{option.opts[0].upper()}`" in text
        for name, below in getattr(command, "commands", {}).items():
            check(f"{path} {name}", below)

    check("gax", get_command(app))


def test_a_setting_is_listed_with_its_type_limits_and_default():
    rows = [row.strip("| ").split(" | ") for row in generated.settings().splitlines()]
    shown = {row[0].strip("`"): row[1:3] for row in rows if len(row) == 4}
    assert shown["input"] == ["`str`", "required"]
    assert shown["crop"][0] == "`float`; greater than 0; at most 1"
    assert shown["models"] == ["list of `bayesian`, `svr`, `classic`", "bayesian, svr"]
    assert shown["limit"] == ["`int`; at least 1", "all"]


def test_every_reason_is_explained():
    for reason, meaning in MEANING.items():
        assert f"| `{reason}` | {meaning} |" in generated.rejects()


def test_every_column_is_in_the_table():
    for column in COLUMNS:
        name = column.name
        for prefix, general in [(a, "<answer>") for a in ANSWERS] + [
            (q, "<question>") for q in QUESTION_NAMES
        ]:
            if name.startswith(prefix + "_"):
                name = name.replace(prefix, general)
                break
        assert f"`{name}`" in generated.columns(), name


def test_the_manuals_say_what_the_fractions_are():
    fractions = page("explanation/fractions")
    assert all(DEFINITION.name in text for text in (README, SPANISH, TUTORIAL, fractions))


def test_every_flag_is_named():
    for flag in [*ImageFlag, *Flag]:
        assert f"{flag.value} {(flag.name or '').lower()}" in generated.columns()


def test_the_settings_have_their_defaults():
    rows = [row.split(" | ") for row in generated.settings().splitlines() if row.startswith("| `")]
    defaults = {row[0].strip("| `").rpartition(".")[2]: row[2] for row in rows}
    expected = {"draws": "64", "models": "bayesian, svr", "unit_size": "4096"}
    image, listing = ImageLimits(), ListingLimits()
    limits = {
        "max_image_bytes": image.bytes,
        "max_image_pixels": image.pixels,
        "max_image_expansion": image.expansion,
        "max_image_header_bytes": image.header_bytes,
        "max_image_memory_mib": image.memory_mib,
        "max_id_characters": listing.id_characters,
        "max_shard_members": listing.shard_members,
    }
    expected |= {name: str(value) for name, value in limits.items()}
    assert {name: defaults[name] for name in expected} == expected


def test_the_bundles_numbers_are_those_of_its_model_card():
    shown = generated.bundle_models() + generated.bundle_intervals()
    missing = [line for line in card_rows(load_bundle().manifest["metrics"]) if line not in shown]
    assert not missing, "\n".join(missing)


def card_rows(metrics: dict[str, Any]) -> Iterator[str]:
    """Rows of the tables of `docs/reference/bundle.md`: errors by model, intervals by level and question."""
    for point in metrics.get("models", {}).values():
        numbers = (
            f"{point['rmse']:.4f}",
            f"{point['rmse_of_some_fractions']:.4f}",
            f"{point['votes_nll']:.2f}",
        )
        yield f"| {' | '.join(numbers)} | {percent(point['class_accuracy'])} |"
    for level, found in metrics.get("intervals", {}).items():
        shares = " | ".join(percent(found[name]) for name in ("coverage", "coverage_asked"))
        yield f"| {100 * float(level):.0f} % | {shares} | {found['width']:.3f} |"
    for name, found in metrics.get("intervals", {}).get("0.9", {}).get("questions", {}).items():
        shares = " | ".join(percent(found[kind]) for kind in ("coverage", "coverage_asked"))
        yield f"| {in_words(name)} | {shares} |"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def test_pandas_polars_duckdb_and_astropy_read_a_catalog_as_shown(stored_unit, tmp_path):
    block = re.search(r"```python\n(.*?)```", page("guides/read"), re.DOTALL)
    assert block is not None
    part, options = stored_unit
    Catalog(options.catalog).commit([part], run_id="run-1", metadata={})
    shown: dict[str, Any] = {}
    exec(block[1].replace("my/catalog", options.catalog), shown)  # noqa: S102
    assert len(shown["in_pandas"]) == len(shown["in_polars"]) == len(shown["in_astropy"]) == part.rows
    assert sum(count for _, count in shown["in_duckdb"].fetchall()) == part.rows


def test_every_promise_names_a_test_that_exists():
    text = page("explanation/guarantees")
    rows = [line.split("|") for line in text.splitlines() if line.startswith("|") and "::" in line]
    assert [int(number) for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE)] == list(range(1, 10))
    assert text.count("\n|") - 2 * 9 == len(rows)
    assert len(rows) >= 9
    for _, _, test, _ in rows:
        named = re.fullmatch(r" `(tests/[\w/]+\.py)::(\w+)` ", test)
        assert named, test
        names = {
            n.name
            for n in ast.walk(ast.parse((ROOT / named[1]).read_text()))
            if isinstance(n, ast.FunctionDef)
        }
        assert named[2] in names, test


@pytest.mark.parametrize(
    "words", [words for words, _ in shown_commands(README, SPANISH, *PAGES.values())], ids=" ".join
)
def test_every_command_that_is_shown_has_these_flags_and_values(words):
    group: Any = get_command(app)
    context = group.make_context("gax", list(words))
    while hasattr(group, "commands"):
        name, group, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        context = group.make_context(name, rest, parent=context)
    assert not context.args


def test_pictures_and_pages_it_links_to_are_there():
    for text in (README, SPANISH):
        places = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
        assert places
        for place in places:
            assert (ROOT / place).exists(), place


def test_nothing_is_left_to_fill_in():
    assert all("PLACEHOLDER" not in text for text in (README, *PAGES.values()))


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150
