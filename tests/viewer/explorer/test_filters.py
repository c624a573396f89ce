"""What the fields of the form select, beside what NumPy finds in the whole table."""

import re
import shlex
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from gax_batch import open_catalog
from gax_batch.catalog.condition import Condition
from gax_batch.catalog.schema import GALAXIES
from gax_batch.catalog.snapshots import Catalog
from gax_batch.cli import app
from gax_batch.errors import UsageError
from gax_batch.imaging.wcs import directions
from gax_batch.system.disk_database import Scratch
from gax_batch.viewer.explorer.columns import Columns
from gax_batch.viewer.explorer.filters import FIELDS, FLAGS, Filters
from gax_batch.viewer.explorer.finder import Finder

SPIRAL = "t04_spiral_a08_spiral"


@pytest.fixture(scope="module")
def columns(random_catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Columns:
    return Columns(random_catalog, tmp_path_factory.mktemp("columns"))


@pytest.fixture(scope="module")
def rows(random_catalog: Catalog) -> pa.Table:
    return random_catalog.galaxies()


def numbers(rows: pa.Table, name: str) -> np.ndarray:
    return rows[name].to_numpy().astype(float)


def near(rows: pa.Table, ra: float, dec: float, radius: float) -> np.ndarray:
    there = directions(numbers(rows, "ra"), numbers(rows, "dec"))
    chord = np.linalg.norm(there - directions(np.array([ra]), np.array([dec])), axis=1)
    return np.degrees(2 * np.arcsin(chord / 2)) <= radius


def named(rows: pa.Table, pattern: str) -> np.ndarray:
    return np.array([re.fullmatch(pattern, name) is not None for name in rows["galaxy_id"].to_pylist()])


CASES = {
    "all": ({}, lambda rows: np.ones(len(rows), bool)),
    "fraction": (
        {"answer": SPIRAL, "prob_min": "0.5", "prob_max": "0.75"},
        lambda rows: (numbers(rows, f"{SPIRAL}_prob") >= 0.5) & (numbers(rows, f"{SPIRAL}_prob") <= 0.75),
    ),
    "width": (
        {"answer": SPIRAL, "measure_max": "0.25"},
        lambda rows: numbers(rows, f"{SPIRAL}_hi") - numbers(rows, f"{SPIRAL}_lo") <= 0.25,
    ),
    "entropy": (
        {"answer": SPIRAL, "measure": "entropy", "measure_min": "0.5"},
        lambda rows: numbers(rows, "t04_spiral_entropy") >= 0.5,
    ),
    "mutual information": (
        {"answer": SPIRAL, "measure": "mutual_info", "measure_min": "0.5"},
        lambda rows: numbers(rows, "t04_spiral_mutual_info") >= 0.5,
    ),
    "out of distribution": (
        {"measure": "ood", "measure_min": "0.9"},
        lambda rows: numbers(rows, "ood_score") >= 0.9,
    ),
    "with a flag": ({"flag_no_position": "with"}, lambda rows: np.isnan(numbers(rows, "ra"))),
    "without it": ({"flag_no_position": "without"}, lambda rows: ~np.isnan(numbers(rows, "ra"))),
    "cone": ({"ra": "150", "dec": "2", "radius": "0.7"}, lambda rows: near(rows, 150, 2, 0.7)),
    "one id": ({"id": "g1-17"}, lambda rows: named(rows, "g1-17")),
    "ids": ({"id": "g1-17, g2-1*,"}, lambda rows: named(rows, "g1-17|g2-1.*")),
    "a condition": ({"where": "dec > 2 -- north"}, lambda rows: numbers(rows, "dec") > 2),
    "either, and more": (
        {"where": "dec > 3 OR dec < 1", "prob_min": "0.5"},
        lambda rows: (
            ((numbers(rows, "dec") > 3) | (numbers(rows, "dec") < 1))
            & (numbers(rows, "t01_smooth_or_features_a01_smooth_prob") >= 0.5)
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_fields_select_what_they_say(case, columns, rows):
    values, expected = CASES[case]
    with np.errstate(invalid="ignore"):
        wanted = np.flatnonzero(expected(rows))
    assert len(wanted) > 0
    np.testing.assert_array_equal(Finder(columns).find(Filters.parse(values)), wanted)


@pytest.mark.parametrize("order", ["most_probable", "least_probable", "most_uncertain", "least_uncertain"])
@pytest.mark.parametrize("measure", ["width", "std", "entropy", "ood"])
def test_the_line_of_python_gives_the_same_galaxies_in_the_same_order(
    order, measure, columns, random_catalog, monkeypatch
):
    filters = Filters.parse({"answer": SPIRAL, "prob_min": "0.9", "measure": measure, "order": order})
    found = columns.ids.take(Finder(columns).find(filters)).to_pylist()
    shown: dict[str, object] = {}
    line = filters.python(random_catalog.uri, 1)
    exec(line.replace("; ", "; frame = "), shown)  # noqa: S102
    assert "\n" not in line
    assert shown["frame"]["galaxy_id"].tolist() == found
    assert 30 < len(found) < 100


def test_the_command_publishes_the_same_galaxies(columns, random_catalog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    filters = Filters.parse(
        {"ra": "150", "dec": "2", "radius": "1", "where": "gz2_class <> 'Er'", "id": "g1-*"}
    )
    words = shlex.split(filters.command(random_catalog.uri, 1))
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, done.output
    from astropy.table import Table

    published = Table.read(tmp_path / "galaxies.vot")["galaxy_id"].tolist()
    assert published == columns.ids.take(Finder(columns).find(filters)).to_pylist()


def test_names_with_signs_of_their_own_are_taken_as_they_are(tmp_path):
    names = ["it's [a]_!%\\\\*.", "it's [a]x!%\\\\*.", "it's"]
    text = Filters.parse({"id": "it's*_!%\\\\*"}).expression()
    with Scratch(tmp_path) as scratch:
        condition = Condition(text, GALAXIES, scratch)
        assert condition.places(pa.table({"galaxy_id": names})).to_pylist() == [0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prob_min": "2"}, r"prob.min.*'2'.*\b0\b.*\b1\b"),
        ({"prob_min": "nan"}, r"prob.min.*nan.*\b0\b.*\b1\b"),
        ({"measure_max": "-1"}, r"measure.max.*-1.*\b0\b"),
        ({"measure_max": "inf"}, r"measure.max.*inf.*\b0\b"),
        ({"answer": "t04_spiral"}, "answer.*t04_spiral"),
        ({"measure": "prob; DROP TABLE"}, "measure"),
        ({"flag_masked": "maybe"}, "flag_masked"),
        ({"flag_nothing": "with"}, "flag_nothing"),
        ({"files": "/etc/passwd"}, "files"),
        ({"ra": "10", "dec": "3"}, r"\bra\b.*\bdec\b.*\bradius\b"),
        ({"ra": "361", "dec": "3", "radius": "1"}, r"\bra\b.*361.*\b0\b.*\b360\b"),
    ],
)
def test_a_field_that_is_wrong_is_said_in_a_line(values, words):
    with pytest.raises(UsageError, match=r"^[^\n]+$") as caught:
        Filters.parse(values)
    assert re.search(words, str(caught.value))


@pytest.mark.parametrize(
    "where", ["read_text('/etc/passwd') = 'x'", "ra > 1) OR (ra IN (SELECT 1)", "raa > 1"]
)
def test_no_condition_reaches_anything_but_columns(where, columns):
    with pytest.raises(UsageError):
        Finder(columns).find(Filters.parse({"where": where}))


def test_every_flag_and_every_field_is_one_of_the_form():
    assert set(FLAGS.values()) == {1, 2, 4, 8, 16, 32, 64}
    empty = Filters.parse(dict.fromkeys(FIELDS, ""))
    assert empty == Filters()
    assert empty.expression() is None


def test_rows_come_from_their_parts_in_the_order_asked_for(columns, rows):
    places = np.array([599, 0, 201, 200, 599, 7])
    found = columns.rows(places, ["galaxy_id", "ra", f"{SPIRAL}_lo"])
    assert found.equals(rows.select(["galaxy_id", "ra", f"{SPIRAL}_lo"]).take(places).cast(found.schema))
    assert columns.place("g1-0") == 200
    with pytest.raises(UsageError, match="nobody"):
        columns.place("nobody")


def test_a_column_is_read_once(random_catalog, tmp_path, monkeypatch):
    columns = Columns(random_catalog, tmp_path)
    asked: list[list[str]] = []
    batches = random_catalog.batches
    monkeypatch.setattr(random_catalog, "batches", lambda names: (asked.append(names), batches(names))[1])
    finder = Finder(columns)
    for bound in ("0.2", "0.3"):
        finder.find(Filters.parse({"answer": SPIRAL, "prob_min": bound, "order": "most_uncertain"}))
    assert asked == [[f"{SPIRAL}_prob", f"{SPIRAL}_hi", f"{SPIRAL}_lo"]]
    assert columns.table(["ra"]).schema.field("ra").type == GALAXIES.field("ra").type


def test_a_notebook_takes_the_same_condition(random_catalog):
    snapshot = open_catalog(random_catalog.uri)
    assert len(snapshot.to_arrow(["ra"], where="dec > 2")) == len(snapshot.to_arrow(where="dec > 2"))
    with pytest.raises(UsageError):
        snapshot.to_arrow(where="now() > 1")


def test_it_needs_no_more_than_the_folder_it_is_given(random_catalog, tmp_path):
    folder = tmp_path / "columns"
    folder.mkdir()
    columns = Columns(random_catalog, folder)
    files = sum(path.stat().st_size for path in Path(folder).iterdir())
    assert 600 * 20 < files < 600 * 60 + 3_000
    assert len(columns) == 600
