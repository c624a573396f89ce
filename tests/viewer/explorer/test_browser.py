"""The pages in a real browser, clicked through."""

import math

import numpy as np
import pytest
from browsers import BROWSER, shown, violations

from gax_batch.catalog.snapshots import Catalog

SMOOTH = "t01_smooth_or_features_a01_smooth"

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine (make browser, as root)")


def found(tab) -> int:
    return int(tab.get_by_role("status").first.inner_text().split()[0])


def field(tab, name: str):
    """The control of a filter."""
    return tab.locator(f"#filters [name={name}]")


def test_a_person_filters_looks_and_takes_what_is_found(browser, address, shown_catalog, tmp_path):
    rows = Catalog(shown_catalog).galaxies(["galaxy_id", f"{SMOOTH}_prob", f"{SMOOTH}_lo", f"{SMOOTH}_hi"])
    bound = f"{np.median(rows[f'{SMOOTH}_prob']):.4f}"
    rows = [row for row in rows.to_pylist() if row[f"{SMOOTH}_prob"] >= float(bound)]
    rows.sort(key=lambda row: row[f"{SMOOTH}_lo"] - row[f"{SMOOTH}_hi"])
    tab, complaints = shown(browser, address, address, accept_downloads=True)
    assert found(tab) == 31
    field(tab, "answer").select_option(SMOOTH)
    field(tab, "prob_min").fill(bound)
    field(tab, "order").select_option("most_uncertain")
    tab.locator("#filters button[type=submit]").click()
    assert found(tab) == len(rows)
    # What is empty is not in the address, which can be kept and shared.
    assert tab.url == f"{address}?answer={SMOOTH}&prob_min={bound}&measure=width&order=most_uncertain"
    tab.wait_for_load_state("networkidle")
    sizes = tab.evaluate("[...document.images].map(i => i.complete && i.naturalWidth)")
    assert sizes == [64] * min(len(rows), 24)
    tab.locator(".card .picture").first.click()
    assert tab.get_by_role("heading", level=1).inner_text() == rows[0]["galaxy_id"]
    assert tab.locator("#tree .branch").count() == 9
    tab.locator(".kicker a").click()
    assert found(tab) == len(rows)
    for row in rows[:2]:
        tab.get_by_label(row["galaxy_id"], exact=True).check()
    assert tab.locator("[name=take][value=checked]").is_checked()
    tab.locator("#export [name=format]").select_option("votable")
    with tab.expect_download() as download:
        tab.locator("#export button[type=submit]").click()
    download.value.save_as(tmp_path / download.value.suggested_filename)
    from astropy.table import Table

    taken = Table.read(tmp_path / "galaxies-2.vot", format="votable")["galaxy_id"].tolist()
    assert sorted(taken) == sorted(row["galaxy_id"] for row in rows[:2])
    assert complaints == []
    tab.context.close()


def test_a_cone_is_chosen_on_the_map(browser, address, shown_catalog):
    tab, complaints = shown(browser, address, address, viewport={"width": 1280, "height": 900})
    assert tab.locator("#sky").get_attribute("data-radius") == ""
    box = tab.locator("#sky").bounding_box()
    # The middle of the map is RA 180, Dec 0; y = sin(t) of 2 t + sin 2 t = pi sin(dec).
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.mouse.move(*middle)
    tab.mouse.down()
    tab.mouse.move(middle[0], middle[1] - 30, steps=5)
    theta = math.asin(30 / (box["height"] / 2))
    radius = math.degrees(math.asin((2 * theta + math.sin(2 * theta)) / math.pi))
    tab.mouse.up()
    tab.wait_for_url("**ra=*")
    assert float(field(tab, "ra").input_value()) == pytest.approx(180, abs=1)
    assert float(field(tab, "dec").input_value()) == pytest.approx(0, abs=1)
    chosen = float(field(tab, "radius").input_value())
    assert chosen == pytest.approx(radius, rel=0.1)
    places = Catalog(shown_catalog).galaxies(["ra", "dec"]).to_pylist()
    inside = [p for p in places if p["ra"] is not None and math.hypot(p["ra"] - 180, p["dec"]) < 0.8 * chosen]
    assert len(inside) <= found(tab) < 21
    # Now the map is near; a press without a drag takes the radius that is there.
    assert float(tab.locator("#sky").get_attribute("data-radius")) == pytest.approx(1.6 * chosen)
    tab.locator("#sky").click(position={"x": box["width"] / 2, "y": box["height"] / 4})
    tab.wait_for_url(lambda url: "dec=0.0" not in url and "ra=" in url)
    assert float(field(tab, "dec").input_value()) == pytest.approx(0.8 * chosen, rel=0.1)
    assert float(field(tab, "radius").input_value()) == chosen
    assert complaints == []
    tab.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["", "galaxy?galaxy=000001", "?where=raa+%3E+1", "?ra=180&dec=20&radius=15"])
def test_an_accessibility_checker_finds_nothing_and_it_fits_a_phone(browser, address, path, scheme):
    size = {"width": 360, "height": 740}
    tab, _ = shown(browser, address + path, address, color_scheme=scheme, viewport=size, bypass_csp=True)
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    for details in tab.locator("details:not([open]) summary").all():
        details.click()
    assert violations(tab) == []
    tab.context.close()


def test_the_keyboard_is_enough(browser, address):
    tab, complaints = shown(browser, address, address)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.getAttribute('href')") == "#main"
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.name") == "answer"
    tab.keyboard.press("Tab")
    tab.keyboard.type("0.99")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**prob_min=0.99**")
    assert found(tab) < 31
    # Everything that can be acted on is in the order of the page and shows that it is reached.
    tab.goto(address)
    names = []
    for _ in range(80):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement === document.body"):
            break
        width = tab.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        names.append(tab.evaluate("document.activeElement.name || document.activeElement.className"))
        assert width == "3px"
    assert names.index("order") < names.index("picture") < names.index("take") < names.index("columns")
    assert complaints == []
    tab.context.close()


def test_a_line_is_copied(browser, address):
    from playwright.sync_api import expect

    tab, complaints = shown(browser, address, address, permissions=["clipboard-read", "clipboard-write"])
    button = tab.locator("button.copy").first
    before = button.inner_text()
    button.click()
    expect(button).not_to_have_text(before)
    line = tab.evaluate("navigator.clipboard.readText()")
    assert line.startswith("import gax_batch; gax_batch.open_catalog(")
    assert complaints == []
    tab.context.close()


def test_without_scripts_the_pages_work(browser, address):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(address)
    field(tab, "prob_min").fill("0.32")
    tab.locator("#filters button[type=submit]").click()
    assert 0 < found(tab) < 31
    context.close()
