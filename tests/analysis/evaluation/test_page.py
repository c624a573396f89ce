import re

import numpy as np
import pytest

from gax_batch import gz2
from gax_batch.analysis.evaluation import distributions, looks, metrics
from gax_batch.analysis.evaluation.page import figures, page
from gax_batch.analysis.labels import Labels


@pytest.fixture
def result():
    rng = np.random.default_rng(0)
    prob, truth = (
        gz2.cumulative(gz2.conditional(rng.gamma(0.5, size=(40, gz2.N_ANSWERS)) + 1e-6)).astype(np.float32)
        for _ in range(2)
    )
    ids = [str(i) for i in range(40)]
    labels = Labels.of_fractions(ids, truth, 40.0, definition="debiased", numbering="GalaxyID")
    intervals = {
        level: (np.maximum(prob - reach, 0), np.minimum(prob + reach, 1))
        for level, reach in (("0.5", np.float32(0.1)), ("0.9", np.float32(0.3)))
    }
    quantiles, levels = distributions.quantiles_of_intervals(prob, intervals)
    error = metrics.squared_error(prob, labels)
    return {
        "of": "<bundle>",
        "galaxies": {"voted": 40, "classes": 1, "largest": 0},
        "definition": {"predictions": "debiased", "labels": "debiased"},
        "trained_the_bundle": {"known": True, "galaxies": 3, "by_id": 3, "by_pixels": 0},
        "points": metrics.point_metrics(prob, labels),
        "vote_noise_rmse": metrics.vote_noise(labels),
        "reliability": metrics.reliability(prob, labels),
        "risk_coverage": {"interval width": metrics.risk_coverage(error, error)},
        "intervals": {level: metrics.coverage(*ends, labels, prob) for level, ends in intervals.items()},
        "distribution": distributions.distribution_metrics(quantiles, levels, labels),
        "clear_classes": {"accuracy": 1.0, "classes": ["round"], "confusion": [[1]]},
    }


def test_the_page_shows_coverage_over_all_and_where_asked(result):
    html = page(result)
    drawings = figures(result)
    for name in ("coverage-questions", "coverage-shares", "coverage-fractions", "reliability", "pit"):
        assert re.search(r'aria-label="[^"]+"', drawings[name]), name
        assert drawings[name] in html, name
    found = result["intervals"]["0.9"]["questions"]["t10_arms_winding"]
    for key in ("coverage", "coverage_asked"):
        assert f"{found[key]:.1%}" in html
    assert "100.0%" in html


def test_the_page_shows_the_intervals_of_conditional_fractions_if_they_were_judged(result):
    spiral = {"galaxies": 1234, "coverage": 0.8765, "width": 0.4321, "rmse": 0.1357}
    html = page(result | {"conditional": spiral | {"coverage": 0.9012, "questions": {"t04_spiral": spiral}}})
    without = page(result)
    for fact in ("1,234", "87.6%", "90.1%", "0.1357"):
        assert fact in html
        assert fact not in without
    assert "0.432" in html


def test_the_page_shows_coverage_by_look_if_there_were_images(result):
    drawings, without = figures(result), page(result)
    rows = np.arange(40, dtype=np.float64)
    zeros, ones = np.zeros((40, gz2.N_ANSWERS), np.float32), np.ones((40, gz2.N_ANSWERS), np.float32)
    truth = gz2.cumulative(gz2.conditional(ones)).astype(np.float32)
    ids = [str(i) for i in range(40)]
    labels = Labels.of_fractions(ids, truth, 40.0, definition="debiased", numbering="GalaxyID")
    hi = np.where((rows < 8)[:, None], zeros, ones)
    found = looks.by_fifth(metrics.Cells(zeros, hi, labels, ones), {"size": rows, "sharpness": -rows})
    seen = result | {"by_look": found}
    assert "sharpness" not in without
    assert page(seen).count("<svg") == without.count("<svg") + 1
    assert page(seen).count("<tr>") == without.count("<tr>") + 11
    (drawing,) = (figures(seen).keys() - drawings.keys(),)
    heights = re.findall(r"<title>(\d), (\w+): (\d)</title>", figures(seen)[next(iter(drawing))])
    failed = {("1", "size"), ("5", "sharpness")}
    assert len(heights) == 10
    assert {(fifth, look) for fifth, look, height in heights if height == "0"} == failed


def test_the_page_escapes_names(result):
    html = page(result)
    assert "&lt;bundle&gt;" in html
    assert "<bundle>" not in html


def test_the_page_warns_of_other_definitions_and_unknown_training_galaxies(result):
    warning = 'class="warning"'
    assert warning not in page(result)
    assert (
        page(result | {"definition": {"predictions": "weighted", "labels": "debiased"}}).count(warning) == 1
    )
    unknown = {"known": False, "galaxies": 0, "by_id": 0, "by_pixels": 0}
    assert page(result | {"trained_the_bundle": unknown}).count(warning) == 1


def test_a_page_of_classes_alone_has_no_plots():
    found = {
        "of": "bundle",
        "galaxies": {"voted": 0, "classes": 1},
        "clear_classes": {"accuracy": 1.0, "classes": ["round"], "confusion": [[1]]},
    }
    html = page(found)
    assert "100.0%" in html
    assert "<svg" not in html
