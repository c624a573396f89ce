"""The page in a real browser: it draws everything, complains of nothing, and is accessible."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SECTIONS = ["counts", "throughput", "sky", "questions", "galleries", "calibration", "rejects", "provenance"]

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine (make browser, as root)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def shown(browser: Any, page: Path, **options: Any) -> tuple[Any, list[str]]:
    context = browser.new_context(**options)
    tab, complaints = context.new_page(), []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: (complaints.append("a script ran"), dialog.dismiss()))
    tab.on("request", lambda request: _note(complaints, request.url))
    tab.goto(page.as_uri())
    return tab, complaints


def _note(complaints: list[str], url: str) -> None:
    if not url.startswith(("file:", "data:")):
        complaints.append(f"asked for {url}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_the_page_is_whole_and_fits(browser, page, scheme, width):
    tab, complaints = shown(browser, page, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert complaints == []
    for section in SECTIONS:
        box = tab.locator(f"#{section}").bounding_box()
        assert box["width"] > 300
        assert box["height"] > 80
    sizes = tab.evaluate("[...document.images].map(i => [i.complete, i.naturalWidth])")
    assert len(sizes) > 20
    assert all(size == [True, 64] for size in sizes)
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    drawn = tab.evaluate("[...document.querySelectorAll('figure svg')].map(s => s.getBBox().height)")
    assert len(drawn) == 2 + 2 + 11 + 3
    assert min(drawn) > 50
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(v) for v in dark.removeprefix("rgb(").removesuffix(")").split(",")) < 200) == (
        scheme == "dark"
    )
    tab.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_accessibility_checker_finds_nothing(browser, page, scheme):
    from axe_playwright_python.sync_playwright import Axe

    tab, _ = shown(browser, page, color_scheme=scheme, bypass_csp=True)
    found = Axe().run(tab).response
    assert [(rule["id"], rule["nodes"][0]["html"][:200]) for rule in found["violations"]] == []
    assert any(rule["id"] == "color-contrast" for rule in found["passes"])
    tab.context.close()


def test_the_keyboard_reaches_the_sections(browser, page):
    tab, _ = shown(browser, page)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the counts"
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    assert tab.url.endswith("#throughput")
    tab.context.close()


def test_it_prints_in_dark_ink_on_white(browser, page, tmp_path):
    tab, _ = shown(browser, page, color_scheme="dark")
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.pdf().startswith(b"%PDF")
    tab.context.close()
