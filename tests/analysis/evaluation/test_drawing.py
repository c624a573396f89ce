from xml.etree import ElementTree

import pytest

from gax_batch.analysis.evaluation.drawing import bars, curves


def elements(svg, tag):
    return list(ElementTree.fromstring(svg).iter(tag))  # noqa: S314 - our own drawing


def test_a_bar_is_as_high_as_its_value():
    svg = bars("t", "x", "y", {"a": {"one": 0.5, "two": 1.0}, "b <&": {"one": 0.25}}, top=1.0)
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
