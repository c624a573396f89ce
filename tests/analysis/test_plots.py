import itertools
from xml.etree import ElementTree

import pytest

from gax_batch.analysis.plots import Row, bars, curves, rows, standalone


def elements(svg, tag):
    return list(ElementTree.fromstring(svg).iter(tag))  # noqa: S314 - our own drawing


def test_a_bar_is_as_high_as_its_value():
    svg = bars("t", "x", "y", [("a", {"one": 0.5, "two": 1.0}), ("b <&", {"one": 0.25})], top=1.0)
    found = [e for e in elements(svg, "rect") if e.find("title") is not None]
    heights = [float(e.get("height")) for e in found]
    assert len(heights) == 3
    assert heights[0] == pytest.approx(heights[1] / 2, abs=0.1)
    assert heights[2] == pytest.approx(heights[1] / 4, abs=0.1)


def test_lines_end_at_the_corners_of_the_plot():
    svg = curves(
        "t", "x", "y", {"line": [(0, 0), (1, 0.3)]}, top=0.3, reference=("ideal", [(0, 0), (1, 0.3)])
    )
    line, ideal = elements(svg, "polyline")
    assert line.get("points") == ideal.get("points")
    ticks = [e.text for e in elements(svg, "text")]
    assert "0.32" in ticks
    assert {"line", "ideal"} <= set(ticks)


def test_stacked_bars_stand_on_each_other():
    svg = bars("t", "x", "y", [("a", {"one": 0.5, "two": 0.25})], stacked=True)
    one, two = (e for e in elements(svg, "rect") if e.find("title") is not None)
    assert one.get("x") == two.get("x")
    assert float(two.get("y")) + float(two.get("height")) == pytest.approx(float(one.get("y")), abs=0.1)


def test_a_legend_that_is_too_long_continues_on_the_next_line():
    svg = bars("t", "x", "y", [("a", {f"a rather long name {i}": 1.0 for i in range(5)})])
    places = {(e.get("x"), e.get("y")) for e in elements(svg, "rect") if e.find("title") is None}
    assert len(places) == 5
    assert all(float(x) < 400 for x, _ in places)


def test_names_of_many_groups_do_not_overlap():
    svg = bars("t", "x", "y", [(f"11-{i:02d} 12:00", {"one": 1.0}) for i in range(30)])
    shown = sorted(float(e.get("x")) for e in elements(svg, "text") if (e.text or "").endswith("12:00"))
    assert all(after - before > 60 for before, after in itertools.pairwise(shown))


def test_a_row_has_its_cells_and_its_mark():
    svg = rows("t", "x", [Row("a <&", "note", [(0.0, 0.5, 1.0), (0.5, 1.0, 0.2)], 0.25)])
    first, second = elements(svg, "rect")
    assert first.get("width") == second.get("width")
    assert float(first.get("x")) + float(first.get("width")) == pytest.approx(float(second.get("x")), abs=0.1)
    (mark, *_) = elements(svg, "path")
    middle = float(first.get("x")) + float(first.get("width")) / 2
    assert float(mark.get("d")[1:].split()[0]) == pytest.approx(middle, abs=0.1)


def test_a_file_of_its_own_needs_no_page():
    text = standalone(curves("t", "x", "y", {"line": [(0, 0), (1, 1)]}))
    assert "var(" not in text
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 - our own
