"""The page in a real browser: it draws everything, complains of nothing, and is accessible."""

import pytest
from browsers import BROWSER, shown, violations

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

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine (make browser, as root)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_the_page_is_whole_and_fits(browser, page, scheme, width):
    tab, complaints = shown(
        browser, page.as_uri(), viewport={"width": width, "height": 800}, color_scheme=scheme
    )
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
    tab, _ = shown(browser, page.as_uri(), color_scheme=scheme, bypass_csp=True)
    assert violations(tab) == []
    tab.context.close()


def test_the_keyboard_reaches_the_sections(browser, page):
    tab, _ = shown(browser, page.as_uri())
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.getAttribute('href')") == "#counts"
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    assert tab.url.endswith("#images")
    tab.context.close()


def test_it_prints_in_dark_ink_on_white(browser, page, tmp_path):
    tab, _ = shown(browser, page.as_uri(), color_scheme="dark")
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.pdf().startswith(b"%PDF")
    tab.context.close()
