"""The pages over HTTP: what they say is the catalog's, and whom and what they answer."""

import csv
import html
import http.client
import io
import re
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from explorer_server import serving
from hostile_catalogs import HOSTILE
from typer.testing import CliRunner

from gax_batch.catalog.snapshots import Catalog
from gax_batch.cli import app
from gax_batch.errors import TransientError, UsageError
from gax_batch.viewer.explorer.server import listen

SMOOTH = "t01_smooth_or_features_a01_smooth"


def ask(
    address: str, path: str = "/", values: object = (), method: str = "GET", **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    """Status, body and headers; the path goes out as it is."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=30)
    query = urlencode(values, doseq=True)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, f"{path}?{query}" if query else path, headers=names)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, answer.headers


def page(address: str, values: object = (), path: str = "/") -> str:
    status, body, _ = ask(address, path, values)
    assert status == 200, body
    return body.decode()


def ids(text: str) -> list[str]:
    boxes = re.findall(r'type="checkbox" name="galaxy" value="([^"]*)"', text)
    return [html.unescape(value) for value in boxes]


@pytest.fixture(scope="module")
def rows(shown_catalog: str) -> list[dict[str, object]]:
    return Catalog(shown_catalog).galaxies().to_pylist()


def test_a_page_has_24_galaxies_and_the_last_one_the_rest(address, rows):
    pages = [ids(page(address, {"page": number})) for number in (1, 2, 9)]
    assert [len(found) for found in pages] == [24, 7, 7]
    assert pages[0] + pages[1] == [row["galaxy_id"] for row in rows]
    assert pages[1] == pages[2]


def counts(text: str) -> list[str]:
    """How many galaxies were found, and of how many."""
    (status,) = re.findall(r'role="status">([^<]*)<', text)
    return re.findall(r"\d+", status)


def test_filters_and_order_reach_the_cards(address, rows):
    bound = sorted(row[f"{SMOOTH}_prob"] for row in rows)[15]
    values = {"answer": SMOOTH, "prob_min": bound, "order": "least_probable"}
    wanted = [row for row in rows if row[f"{SMOOTH}_prob"] >= bound]
    wanted.sort(key=lambda row: row[f"{SMOOTH}_prob"])
    text = page(address, values)
    assert ids(text) == [row["galaxy_id"] for row in wanted][:24]
    assert counts(text) == [str(len(wanted)), "31"]
    first = wanted[0]
    shown = f"{first[f'{SMOOTH}_prob']:.2f} <small>[{first[f'{SMOOTH}_lo']:.2f}, {first[f'{SMOOTH}_hi']:.2f}]"
    assert shown in text
    assert f'href="/galaxy?{html.escape(urlencode(values | {"galaxy": first["galaxy_id"]}))}"' in text


def test_a_wrong_field_keeps_the_form_and_says_what_is_wrong(address):
    status, body, _ = ask(address, values={"where": "raa > 1", "prob_min": "0.25"})
    text = html.unescape(body.decode())
    assert status == 400
    (problem,) = re.findall(r'role="alert">([^<]*)<', text)
    assert re.search(r"\braa\b.*\bra\b", problem)
    assert "raa > 1</textarea>" in text
    assert 'value="0.25"' in text
    assert ask(address, values={"page": "-1"})[0] == 400
    assert ask(address, values={"file": "/etc/passwd"})[0] == 400


def test_a_galaxy_has_its_tree_and_its_numbers(address, rows):
    row = rows[0]
    text = page(address, {"galaxy": row["galaxy_id"], "prob_min": "0.1"}, "/galaxy")
    assert text.count('class="block"') == 11
    assert text.count('class="branch"') == 9
    assert f"{row[f'{SMOOTH}_prob']:.3f}" in text
    assert row["source_uri"] in html.unescape(text)
    assert f"{row['gz2_class_margin']:.2f}" in text
    assert 'href="/?prob_min=0.1"' in text
    status, body, _ = ask(address, "/galaxy", {"galaxy": "nobody"})
    assert status == 400
    assert re.search(r'role="alert">[^<]*nobody', body.decode())


def test_cutouts_are_the_surveys_and_what_is_gone_says_so(address, shown_catalog):
    from PIL import Image

    from gax_batch import open_catalog

    status, body, headers = ask(address, "/cutout", {"galaxy": "000001"})
    assert (status, headers["content-type"]) == (200, "image/png")
    pixels = open_catalog(shown_catalog).cutouts(["000001"])[0]
    with Image.open(io.BytesIO(body)) as picture:
        assert picture.tobytes() == pixels.tobytes()
    for name, reason in (("000003", "missing"), ("000004", "changed")):
        status, body, headers = ask(address, "/cutout", {"galaxy": name})
        assert (status, headers["content-type"]) == (200, "image/svg+xml")
        assert f">{reason}</text>" in body.decode()
    assert ask(address, "/cutout", {"galaxy": "nobody"})[0] == 400


def test_hostile_names_are_shown_as_they_are(address):
    for text in (page(address, {"id": HOSTILE}), page(address, {"galaxy": HOSTILE}, "/galaxy")):
        assert "<script>alert" not in text
        assert html.escape(HOSTILE) in text.replace("&#34;", "&quot;").replace("&#39;", "&#x27;")
    assert ask(address, "/cutout", {"galaxy": HOSTILE})[0] == 200
    found = page(address, {"id": HOSTILE})
    assert ids(found) == [HOSTILE]


@pytest.mark.parametrize("take", ["all", "first", "checked"])
def test_what_is_downloaded_is_what_is_asked_for(take, address, rows):
    filters = {"answer": SMOOTH, "prob_min": 0.2, "order": "most_probable"}
    wanted = sorted(
        (row for row in rows if row[f"{SMOOTH}_prob"] >= 0.2), key=lambda row: -row[f"{SMOOTH}_prob"]
    )
    names = [row["galaxy_id"] for row in wanted]
    chosen = {"all": names, "first": names[:3], "checked": ["000001", HOSTILE]}[take]
    asked = filters | {
        "format": "csv",
        "take": take,
        "count": 3,
        "galaxy": ["000001", HOSTILE],
        "columns": "galaxy_id,*_spiral_prob",
    }
    status, body, headers = ask(address, "/export", asked)
    assert status == 200, body
    assert 'filename="galaxies-2.csv"' in headers["content-disposition"]
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    table = list(csv.DictReader(lines))
    assert sorted(row["galaxy_id"] for row in table) == sorted(chosen)
    assert list(table[0])[1] == "t04_spiral_a08_spiral_prob"


def test_a_votable_has_units_and_says_where_it_is_from(address, shown_catalog, tmp_path):
    from astropy.io.votable import parse

    asked = {"format": "votable", "take": "first", "count": 10, "where": "dec IS NOT NULL"}
    _, body, _ = ask(address, "/export", asked)
    (tmp_path / "galaxies.vot").write_bytes(body)
    votable = parse(tmp_path / "galaxies.vot")
    table = votable.get_first_table()
    assert len(table.array) == 10
    assert str(table.get_field_by_id("dec").unit) == "deg"
    infos = {info.name: info.value for info in votable.resources[0].infos}
    assert infos["snapshot"] == "2"
    assert infos["selection"].startswith("galaxy_id IN (")
    assert infos["catalog"] == Catalog(shown_catalog).uri


@pytest.mark.parametrize(
    "asked",
    [
        {"format": "pickle"},
        {"format": "csv", "take": "checked"},
        {"format": "csv", "take": "checked", "galaxy": ["000001"] * 201},
        {"format": "csv", "take": "first", "count": "1e3"},
        {"format": "csv", "columns": "password"},
        {"format": "csv", "where": "read_text('/etc/passwd') = ''"},
        {},
    ],
    ids=str,
)
def test_a_download_that_cannot_be_is_refused(asked, address):
    status, body, _ = ask(address, "/export", asked)
    assert status == 400
    assert 'role="alert"' in body.decode()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_it_does_not_answer_to_another_name(address, host):
    status, body, _ = ask(address, Host=host)
    assert status == 400
    assert b"galax" not in body


def test_it_does_not_answer_what_another_site_asks(address):
    for site in ("cross-site", "same-site"):
        assert ask(address, "/export", {"format": "csv"}, Sec_Fetch_Site=site)[0] == 403
        assert (
            ask(address, "/cutout", {"galaxy": "000001"}, Sec_Fetch_Site=site, Sec_Fetch_Dest="image")[0]
            == 403
        )
        assert ask(address, Sec_Fetch_Site=site, Sec_Fetch_Dest="iframe")[0] == 403
    assert ask(address, Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")[0] == 200
    assert ask(address, Sec_Fetch_Site="same-origin", Sec_Fetch_Dest="image")[0] == 200


def test_every_answer_keeps_browsers_to_this_origin(address):
    places = [
        ("/", ()),
        ("/", {"ra": "x"}),
        ("/cutout", {"galaxy": "000001"}),
        ("/files/explore.js", ()),
        ("/no", ()),
    ]
    for path, values in places:
        headers = ask(address, path, values, Origin="https://evil.example")[2]
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "path",
    [
        "/files/../app.py",
        "/files/..%2fapp.py",
        "/files/%2e%2e/%2e%2e/cli/app.py",
        "/files//etc/passwd",
        "//etc/passwd",
        "/files/explore.html",
        "/openapi.json",
    ],
)
def test_there_is_nothing_beside_the_pages(address, path):
    assert ask(address, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_only_reads(address, method):
    assert ask(address, method=method)[0] == 405


def test_an_older_snapshot_and_a_survey_without_galaxies_have_pages(shown_catalog, tmp_path):
    with serving(shown_catalog, 1) as address:
        assert re.search(r"open_catalog\([^)]*, 1\)", page(address))
    from gax_batch.catalog.parts import write_unit
    from gax_batch.catalog.schema import GALAXIES, REJECTS

    place = str(tmp_path / "empty")
    none = (GALAXIES.empty_table(), REJECTS.empty_table())
    part = write_unit(place, "s", *none, unit_id="0" * 16, fingerprint="f", planned=0)
    Catalog(place).commit([part], run_id="run-1", metadata={})
    with serving(place) as address:
        text = page(address, {"prob_min": 0.5, "order": "most_uncertain"})
        assert counts(text) == ["0", "0"]
        assert 'id="sky"' not in text


def test_a_store_that_fails_is_said_to_and_asked_again(shown_catalog, monkeypatch):
    from gax_batch.viewer.explorer import survey

    def broken(*_: object) -> None:
        raise TransientError("the store kept failing")

    with serving(shown_catalog) as address:
        with monkeypatch.context() as patch:
            patch.setattr(survey, "read_cutouts", broken)
            assert ask(address, "/", {"id": "000006"})[0] == 200
            for name in ("000005", "000006"):  # the second was fetched with its page
                status, body, _ = ask(address, "/cutout", {"galaxy": name})
                assert (status, b"the store kept failing" in body) == (502, True)
        for name in ("000005", "000006"):
            assert ask(address, "/cutout", {"galaxy": name})[0] == 200


def test_a_port_that_is_taken_is_the_users_to_change(shown_catalog):
    with listen(0) as taken:
        port = taken.getsockname()[1]
        assert taken.getsockname()[0] == "127.0.0.1"
        with pytest.raises(UsageError, match=rf"\b{port}\b.*--port"):
            listen(port)
        done = CliRunner().invoke(app, ["explore", "--catalog", shown_catalog, "--port", str(port)])
        assert isinstance(done.exception, UsageError)
    with pytest.raises(UsageError, match=str(Path(shown_catalog) / "no")):
        CliRunner().invoke(
            app, ["explore", "--catalog", str(Path(shown_catalog) / "no")], catch_exceptions=False
        )
