"""The page as text: what it says is what the catalog holds, and nothing in the catalog can act on it."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from catalogs import catalog_of
from galaxy_images import write_images
from hostile_catalogs import HOSTILE
from simulated_galaxies import galaxies
from typer.testing import CliRunner

from gax_batch import gz2
from gax_batch.catalog.snapshots import Catalog, open_existing, read_run_record
from gax_batch.cli import app
from gax_batch.errors import UsageError
from gax_batch.models.domain import Reference, fit_reference
from gax_batch.runner.record import summary_lines
from gax_batch.viewer.report.build import write_report
from gax_batch.viewer.report.gather import COLUMNS, FRACTION_BINS, SHOWN, SHOWN_OF_A_CLASS, gather

SECTIONS = [
    "counts",
    "throughput",
    "sky",
    "questions",
    "population",
    "galleries",
    "calibration",
    "rejects",
    "provenance",
]


class Page(HTMLParser):
    """Tags, ids, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def section(page: Path, name: str) -> str:
    """The source of one section; `class="none"` is on what is told instead of its content."""
    (found,) = re.findall(rf'<section[^>]* id="{name}".*?</section>', page.read_text("utf-8"), re.DOTALL)
    return str(found)


@pytest.fixture(scope="module")
def parsed(page: Path) -> Page:
    return Page(page.read_text(encoding="utf-8"))


def test_every_section_is_there_once_and_no_id_twice(parsed):
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert [name for name in ids if name in SECTIONS] == SECTIONS
    assert len(ids) == len(set(ids))


def test_nothing_is_loaded_and_nothing_runs(page, parsed):
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in parsed.tags}
    assert not [name for _, attrs in parsed.tags for name in attrs if name.startswith("on")]
    places = [v for _, attrs in parsed.tags for k, v in attrs.items() if k in ("src", "href", "xlink:href")]
    assert places
    assert all(place.startswith(("data:image/png;base64,", "#")) for place in places)
    text = page.read_text(encoding="utf-8")
    assert "url(http" not in text
    assert "default-src 'none'" in text
    assert len(text) < 5_000_000


def test_hostile_names_are_shown_as_they_are(parsed):
    assert HOSTILE in parsed.text
    assert f"{HOSTILE}-bad" in parsed.text
    alts = [attrs["alt"] for tag, attrs in parsed.tags if tag == "img"]
    assert any(HOSTILE in alt for alt in alts)


def test_counts_are_the_catalogs(parsed, page, catalog):
    found = Catalog(catalog)
    galaxies, rejects = found.galaxies(["ra"]), found.rejects()
    placed = len(galaxies) - galaxies["ra"].null_count
    total = len(galaxies) + len(rejects)
    assert (len(galaxies), len(rejects)) == (31, 2)
    (sums,) = re.findall(r'<p class="good">.*?</p>', section(page, "counts"), re.DOTALL)
    assert re.findall(r"\d+", sums) == [str(n) for n in (len(galaxies), len(rejects), total, total)]
    assert re.search(rf"\b{len(galaxies) - placed} galaxies\b", section(page, "sky"))
    for row in rejects.to_pylist():
        assert row["reason"] in parsed.text
        assert " ".join(row["detail"].split()) in parsed.text


def test_gone_and_changed_sources_are_said_to_be(page):
    gone = re.findall(r'<div class="gone">.*?</div>', page.read_text("utf-8"), re.DOTALL)
    for reason in ("missing", "changed"):
        assert any(reason in place for place in gone)


def test_fractions_of_the_survey_are_those_of_gax_population(parsed, catalog, page, tmp_path):
    from gax_batch.analysis.population import population

    for row in population(catalog, version=2):
        if row.of == "all":
            assert f"{row.value:.4f} [{row.lo:.4f}, {row.hi:.4f}]" in parsed.text
    write_report(catalog, 1, str(tmp_path / "first.html"))
    first = Page((tmp_path / "first.html").read_text(encoding="utf-8")).text
    spiral = population(catalog, question="t04", version=1)[0]
    assert f"{spiral.value:.4f} [{spiral.lo:.4f}, {spiral.hi:.4f}]" in first


def test_throughput_and_provenance_are_the_records(parsed, catalog):
    for run in ("run-1", "run-2"):
        rate = read_run_record(catalog, run)["galaxies_per_second"]
        assert f"{run} " in parsed.text
        assert f" {rate:.1f} " in parsed.text
    record = read_run_record(catalog, "run-2")
    assert json.loads(re.search(r'\{ "run_id".*\} ', parsed.text + " ")[0]) == record
    assert record["versions"]["pyarrow"] in parsed.text


def test_the_calibration_is_the_bundles(parsed, catalog):
    from gax_batch.models.bundle import load_bundle

    for values in load_bundle().manifest["metrics"].get("intervals", {}).values():
        assert f"{100 * values['coverage']:.1f} %" in parsed.text


def test_a_bundle_that_made_none_of_the_galaxies_is_not_shown(stored_unit, tmp_path):
    part, options = stored_unit
    Catalog(options.catalog).commit([part], run_id="run-1", metadata={})
    write_report(options.catalog, None, str(tmp_path / "page.html"))
    for name in ("calibration", "throughput", "gallery-changed", "sky"):
        assert 'class="none"' in section(tmp_path / "page.html", name)


def test_what_is_gathered_is_what_numpy_finds_in_the_whole_table(catalog):
    opened = open_existing(catalog)
    found = gather(opened.batches(COLUMNS))
    rows = opened.galaxies()
    prob, lo, hi, svr = (
        np.stack([rows[f"{answer}_{kind}"].to_numpy().astype(float) for answer in gz2.ANSWERS], axis=1)
        for kind in ("prob", "lo", "hi", "svr")
    )
    ids = np.array(rows["galaxy_id"].to_pylist())

    def best(scores: np.ndarray, count: int) -> list[str]:
        return [str(ids[row]) for row in np.lexsort((ids, -scores))[:count]]

    galleries = {name: gallery.rows["galaxy_id"].to_pylist() for name, gallery in found.galleries.items()}
    spiral = prob[:, gz2.ANSWERS.index("t04_spiral_a08_spiral")]
    assert galleries["t04_spiral_a08_spiral"] == best(spiral, SHOWN_OF_A_CLASS)
    assert galleries["uncertain"] == best((hi - lo).mean(axis=1), SHOWN)
    assert galleries["far"] == best(rows["ood_score"].to_numpy().astype(float), SHOWN)
    assert galleries["disagree"] == best(np.abs(prob - svr).sum(axis=1) / 2, SHOWN)
    np.testing.assert_allclose(found.totals, prob.sum(axis=0), rtol=1e-12)
    for column in range(gz2.N_ANSWERS):
        counts, _ = np.histogram(prob[:, column], bins=FRACTION_BINS, range=(0, 1))
        np.testing.assert_array_equal(found.histogram[column], counts)
    assert found.sky[0].sum() == found.placed
    there = rows["ra"].is_valid().to_numpy()
    assert found.sky[1].sum() == pytest.approx((hi - lo).mean(axis=1)[there].sum(), rel=1e-12)


def test_the_command_writes_beside_the_run_an_old_snapshot_too(catalog):
    done = CliRunner().invoke(app, ["report", "--catalog", catalog, "--version", "1"])
    assert done.exit_code == 0, done.output
    text = Page((Path(catalog) / "runs" / "run-1" / "report.html").read_text(encoding="utf-8")).text
    assert "run-1" in text
    assert "run-2" not in text
    # A catalog with the page in it is still a catalog.
    assert Catalog(catalog).version == 2


def test_bad_places_are_refused_in_a_line(catalog, tmp_path):
    with pytest.raises(UsageError, match=str(tmp_path / "nothing")):
        write_report(str(tmp_path / "nothing"), None, None)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--output"):
        write_report(catalog, None, str(tmp_path / "file" / "page.html"))


def test_a_page_of_an_empty_survey_says_so(tmp_path, options, task):
    from gax_batch.catalog.parts import write_unit
    from gax_batch.catalog.schema import GALAXIES
    from gax_batch.cluster import unit

    result = unit.read(task, options)
    assert result.rows.num_rows == 5
    from gax_batch.catalog.schema import REJECTS

    part = write_unit(
        options.catalog,
        "s",
        GALAXIES.empty_table(),
        REJECTS.empty_table(),
        unit_id="0" * 16,
        fingerprint="f",
        planned=0,
    )
    Catalog(options.catalog).commit([part], run_id="run-1", metadata={})
    write_report(options.catalog, None, str(tmp_path / "page.html"))
    assert re.search(r"<h1>[^<]*\b0\b", (tmp_path / "page.html").read_text(encoding="utf-8"))
    assert 'class="none"' in section(tmp_path / "page.html", "rejects")


def test_a_vacuumed_snapshot_is_said_to_be_gone(catalog, tmp_path):
    copy = tmp_path / "catalog"
    shutil.copytree(catalog, copy)
    shutil.rmtree(copy / "galaxies" / "parts" / "first")
    write_report(str(copy), None, str(tmp_path / "page.html"))
    assert re.search(r'class="none">[^<]*\b1\b', section(tmp_path / "page.html", "gallery-changed"))


def test_images_of_another_survey_are_said_loudly_in_summary_record_and_report(options, tmp_path):
    write_images(tmp_path / "images", 60)
    compared = replace(options, reference=Reference(fit_reference(galaxies(256))))
    catalog = catalog_of(tmp_path / "images", compared)
    record = read_run_record(catalog, options.run_id)
    assert record["domain"]["galaxies"] == 60
    assert record["domain"]["another_survey"] is True
    assert record["domain"]["shift"] > record["domain"]["shift_limit"]
    write_report(catalog, None, str(tmp_path / "page.html"))
    shown = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert [attrs for _, attrs in shown.tags if attrs.get("role") == "alert"]
    for reason in record["domain"]["reasons"]:
        assert any(reason in line for line in summary_lines(record))
        assert reason in shown.text


def test_a_bundle_without_a_reference_gives_no_verdict(parsed, catalog):
    assert read_run_record(catalog, "run-2")["domain"] is None
    assert not [attrs for _, attrs in parsed.tags if attrs.get("role") == "alert"]


def test_the_record_of_an_earlier_release_has_no_verdict(options, tmp_path):
    write_images(tmp_path / "images", 5)
    catalog = catalog_of(tmp_path / "images", options)
    path = Path(catalog) / "runs" / options.run_id / "run.json"
    record = json.loads(path.read_text())
    del record["domain"]
    path.write_text(json.dumps(record))
    write_report(catalog, None, str(tmp_path / "page.html"))
    assert 'class="none"' in section(tmp_path / "page.html", "images")
