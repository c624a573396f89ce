"""`gax population` on catalogs of an engine with known draws: intervals, groups, units, refusals."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_engine import ANCHOR, LEANS, FakeEngine
from galaxy_images import write_images
from listings import new_folder
from message_facts import numbers_in
from typer.testing import CliRunner

from gax_batch import gz2, storage
from gax_batch.analysis.population import CAUTION, population, render_csv, render_json, render_table
from gax_batch.catalog import layout
from gax_batch.catalog.compaction import compact
from gax_batch.catalog.draws import read_draws
from gax_batch.catalog.parts import Part
from gax_batch.catalog.snapshots import Catalog
from gax_batch.catalog.sums import Grouping
from gax_batch.cli import app
from gax_batch.cluster import unit
from gax_batch.errors import UsageError
from gax_batch.models import DEFAULT_DRAWS, DEFAULT_PASSES
from gax_batch.planning.plan import make_plan
from gax_batch.sources import open_source, read_positions

GROUPING = Grouping(1, {"ood_score": (0.0, 0.3, 1.0)})
COUNT = 40


@pytest.fixture(scope="module")
def images() -> Path:
    folder = new_folder()
    write_images(folder / "images", COUNT)
    rng = np.random.default_rng(0)
    lines = [f"{i:06d},{rng.uniform(0, 360)},{rng.uniform(-80, 80)}" for i in range(COUNT) if i % 4]
    (folder / "positions.csv").write_text("galaxy_id,ra,dec\n" + "\n".join(lines) + "\n")
    return folder


def run(images: Path, options: unit.UnitOptions, unit_size: int, engine: FakeEngine | None = None) -> str:
    """Catalog the images unit by unit, without Ray."""
    catalog = Catalog(options.catalog)
    plan = make_plan(
        open_source(str(images / "images")).list_members(),
        catalog.members(),
        catalog.units(),
        settings_fingerprint=options.settings_fingerprint,
        unit_size=unit_size,
        folder=new_folder(),
        positions=read_positions(str(images / "positions.csv")),
    )
    parts = []
    for planned, place in zip(plan.units, plan.write(catalog.uri, options.run_id), strict=True):
        task = unit.UnitTask(*place, planned.unit_id, planned.fingerprint, planned.members)
        block = unit.infer(unit.read(task, options), engine or FakeEngine(), options)
        part = unit.write(block, options).part
        assert part is not None
        parts.append(part)
    catalog.commit(parts, run_id=options.run_id, metadata={})
    return options.catalog


@pytest.fixture
def cataloged(images, options):
    """A catalog of 40 galaxies in 3 units."""
    return run(images, replace(options, grouping=GROUPING), 16)


def cataloged_prob(catalog: str) -> np.ndarray:
    rows = Catalog(catalog).galaxies([f"{a}_prob" for a in gz2.ANSWERS])
    return np.stack([column.to_numpy() for column in rows.columns], axis=1)


def test_the_interval_includes_the_known_spread_of_the_draws(cataloged):
    rows = population(cataloged)
    prob = cataloged_prob(cataloged)
    mean, leans = prob.mean(axis=0, dtype=np.float64), LEANS.astype(np.float64)
    for index, answer in enumerate(gz2.ANSWERS):
        (row,) = [r for r in rows if (r.answer, r.statistic, r.of) == (answer, "expected", "all")]
        assert row.galaxies == COUNT
        assert row.value == pytest.approx(
            mean[index] + leans.mean() * (ANCHOR[index] - mean[index]), abs=1e-6
        )
        model = np.sqrt(1.25 * leans.var(ddof=1)) * abs(ANCHOR[index] - mean[index])
        assert row.model_std == pytest.approx(model, rel=1e-3, abs=1e-7)
        assert 0 <= row.lo <= row.value <= row.hi <= 1


def test_the_models_spread_is_that_of_the_kept_draws_and_of_the_column(options, tmp_path):
    """Item 11: `_std`, kept draws and `model_std` disagreed by up to a factor of four."""
    write_images(tmp_path / "images", 1)
    (tmp_path / "positions.csv").write_text("galaxy_id,ra,dec\n000000,10,20\n")
    alone = run(tmp_path, replace(options, catalog=str(tmp_path / "alone"), keep_draws=True), 16)
    column = Catalog(alone).galaxies([f"{a}_std" for a in gz2.ANSWERS])
    std = np.array([values[0].as_py() for values in column.columns])
    assert std.max() > 0.01
    draws = read_draws(alone, ["000000"])[0].astype(np.float64)
    np.testing.assert_allclose(draws.std(axis=0), std, atol=np.finfo(np.float16).eps)
    rows = {r.answer: r for r in population(alone) if (r.statistic, r.of) == ("expected", "all")}
    model = np.array([rows[answer].model_std for answer in gz2.ANSWERS])
    # Of S draws: the sample's variance, and that of a mean of S draws.
    count = len(draws)
    np.testing.assert_allclose(model, std * np.sqrt((count + 1) / (count - 1)), atol=1e-6)


@pytest.mark.parametrize("by", [None, "healpix", "ood_score"])
@pytest.mark.parametrize("unit_size", [1, 7, COUNT])
def test_units_of_any_size_give_the_same_fractions(cataloged, images, options, tmp_path, by, unit_size):
    other = replace(options, grouping=GROUPING, catalog=str(tmp_path / "other"))
    first, second = population(cataloged, by=by), population(run(images, other, unit_size), by=by)
    assert len(first) == len(second) > 0
    for one, two in zip(first, second, strict=True):
        labels = ("grouping", "bin", "low", "high", "galaxies", "answer", "statistic", "of")
        assert [getattr(one, n) for n in labels] == [getattr(two, n) for n in labels]
        for name in ("value", "model_std", "sampling_std", "lo", "hi"):
            expected = getattr(two, name)
            assert getattr(one, name) == (None if expected is None else pytest.approx(expected, abs=1e-9))


def test_groups_are_those_of_the_catalogs_rows(cataloged):
    rows = Catalog(cataloged).galaxies(["ood_score", "ra"])
    low = int(np.sum(rows["ood_score"].to_numpy() < 0.3))
    bins = {(r.bin, r.low, r.high): r.galaxies for r in population(cataloged, by="ood_score")}
    assert bins == {(0, 0.0, 0.3): low, (1, 0.3, 1.0): COUNT - low}
    cells = {r.bin: r.galaxies for r in population(cataloged, by="healpix", question="t01")}
    assert cells[None] == rows["ra"].null_count == 10
    assert sum(cells.values()) == COUNT


def test_one_question_has_its_answers_alone(cataloged):
    rows = population(cataloged, question="t04_spiral", level=0.5)
    assert {r.answer for r in rows} == {"t04_spiral_a08_spiral", "t04_spiral_a09_no_spiral"}
    asked = [r.value for r in rows if (r.statistic, r.of) == ("expected", "asked")]
    assert sum(asked) == pytest.approx(1)
    (wide,) = [r for r in population(cataloged, question="t04") if r.answer == rows[0].answer][:1]
    assert wide.hi - wide.lo > rows[0].hi - rows[0].lo


def test_a_unit_done_again_replaces_its_sums(cataloged, images, options):
    before = population(cataloged)
    again = replace(options, grouping=GROUPING, settings_fingerprint="fedcba9876543210", run_id="run-2")
    run(images, again, 16)
    assert len(Catalog(cataloged).parts()) == 3
    assert population(cataloged) == before


def test_compacted_units_keep_their_sums_and_draws(images, options):
    catalog = run(images, replace(options, grouping=GROUPING, keep_draws=True), 8)
    ids = [f"{i:06d}" for i in range(COUNT)]
    before, draws = population(catalog, by="healpix"), read_draws(catalog, ids)
    assert compact(catalog, 1000, passes=DEFAULT_PASSES, draws=DEFAULT_DRAWS).after == 1
    for one, two in zip(population(catalog, by="healpix"), before, strict=True):
        assert (one.bin, one.galaxies, one.answer) == (two.bin, two.galaxies, two.answer)
        assert one.value == (None if two.value is None else pytest.approx(two.value, abs=1e-9))
    np.testing.assert_array_equal(read_draws(catalog, ids), draws)


def test_table_csv_and_json_say_the_same(cataloged):
    rows = population(cataloged, by="healpix", question="t02")
    parsed = list(csv.DictReader(io.StringIO(render_csv(rows))))
    loaded = json.loads(render_json(rows))
    assert len(parsed) == len(loaded) == len(rows)
    for one, two, row in zip(parsed, loaded, rows, strict=True):
        for name in ("bin", "value", "lo", "hi"):
            expected = getattr(row, name)
            assert two[name] == expected
            assert one[name] == ("" if expected is None else str(expected))
    table = render_table(population(cataloged, question="t02"), 0.9)
    assert "40" in numbers_in(table)
    assert f"{rows[0].answer}" in table
    for rows in (population(cataloged), population(cataloged, by="ood_score")):
        assert CAUTION in " ".join(render_table(rows, 0.9).split())


def test_the_command_prints_a_table_csv_or_json(cataloged):
    done = CliRunner().invoke(app, ["population", "--catalog", cataloged, "--question", "t03", "--json"])
    assert done.exit_code == 0
    assert {row["question"] for row in json.loads(done.output)} == {"t03_bar"}
    lines = CliRunner().invoke(app, ["population", "--catalog", cataloged, "--csv"]).output.splitlines()
    assert len(lines) == 1 + 37 * 4
    assert "sampling" in CliRunner().invoke(app, ["population", "--catalog", cataloged]).output


def test_a_catalog_without_sums_says_what_to_do(cataloged):
    for name in Catalog(cataloged).parts():
        storage.delete(layout.companion(cataloged, layout.POPULATION, name.key))
    with pytest.raises(UsageError, match="gax run"):
        population(cataloged)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        ({"by": "redshift"}, "healpix, ood_score.*redshift"),
        ({"question": "t04_spirals"}, "'t04_spiral'"),
    ],
)
def test_unknown_groups_and_questions_are_refused(cataloged, ask, words):
    with pytest.raises(UsageError, match=words):
        population(cataloged, **ask)


def test_no_catalog_no_draws_and_mixed_draws_are_refused(images, options, tmp_path):
    with pytest.raises(UsageError, match=r"nothing.*--catalog"):
        population(str(tmp_path / "nothing"))

    class WithoutDraws(FakeEngine):
        def summarize(self, images):
            summary = super().summarize(images)
            return replace(summary, draws=summary.draws[:, :0])

    blind = replace(options, catalog=str(tmp_path / "blind"))
    with pytest.raises(UsageError, match=r"bayesian.*--models"):
        population(run(images, blind, 16, WithoutDraws()))

    # A run whose units failed leaves the old ones in place.
    half = replace(options, catalog=str(tmp_path / "half"))
    run(images, half, 16)
    first = Catalog(half.catalog)
    old = first.parts()[0].key
    new = old.replace(options.settings_fingerprint, "e" * 16)
    for kind in (layout.GALAXIES_TABLE, layout.POPULATION):
        data = storage.read_bytes(storage.join(half.catalog, kind, old))
        storage.write_bytes(storage.join(half.catalog, kind, new), data)
    part = _part(half.catalog, new)
    first.commit([part], run_id="run-3", metadata={})
    with pytest.raises(UsageError, match=r"\b2 "):
        population(half.catalog)


def _part(catalog, key):
    name = layout.PartName.parse(key)
    size = len(storage.read_bytes(storage.join(catalog, "galaxies", key)))
    return Part(name.unit_id, name.fingerprint, key, size, 16, 0, 16, "{}", None, {})
