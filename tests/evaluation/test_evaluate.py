import csv
import json

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from gax_batch import tree
from gax_batch.cli import app
from gax_batch.errors import UsageError
from gax_batch.evaluation import evaluate, page


@pytest.fixture
def truth():
    rng = np.random.default_rng(0)
    return tree.conditional(rng.gamma(0.8, size=(30, tree.N_ANSWERS)) + 1e-3)


@pytest.fixture
def table(tmp_path, truth):
    path = tmp_path / "votes.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["asset_id", "total_classifications", *tree.HART16_COLUMNS])
        writer.writerows([[f"g{i}", 40, *row] for i, row in enumerate(truth)])
    return str(path)


@pytest.fixture
def catalog(monkeypatch, truth):
    """A catalog of the last 20 of them and of 5 others, in another order, with known errors."""
    prob = np.clip(tree.cumulative(truth)[::-1][:25] + 0.05, 0, 1).astype(np.float32)
    names = [f"g{i}" for i in range(29, 9, -1)] + [f"other{i}" for i in range(5)]
    columns = {"galaxy_id": names, "ood_score": np.zeros(25, np.float32)}
    for index, answer in enumerate(tree.ANSWERS):
        for kind, shift in (("prob", 0), ("std", 0), ("lo", -0.1), ("hi", 0.1)):
            columns[f"{answer}_{kind}"] = prob[:, index] + np.float32(shift)

    class Stored:
        def __init__(self, uri):
            self.uri = uri

        def galaxies(self, columns=None):
            return pa.table(stored).select(columns)

    stored = columns
    monkeypatch.setattr(evaluate, "Catalog", Stored)
    return "a-catalog"


def test_a_catalog_is_judged_on_the_galaxies_it_shares_with_the_labels(catalog, table, tmp_path):
    lines = []
    found = evaluate.evaluate_catalog(catalog, table, str(tmp_path / "out"), lines.append)
    assert found["galaxies"] == {"voted": 20, "classes": 0}
    assert found["points"]["rmse"] == pytest.approx(0.05, abs=0.002)
    assert found["intervals"]["0.9"]["coverage"] == 1
    assert "10 labels without galaxies of the catalog (g0, g1, g2, ...)" in " ".join(lines)
    assert "5 without a label" in " ".join(lines)
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == found
    html = (tmp_path / "out" / "evaluation.html").read_text()
    assert html.count("<svg") == html.count("</svg>") == 4


def test_labels_of_other_galaxies_are_refused(catalog, tmp_path):
    path = tmp_path / "classes.csv"
    path.write_text("galaxy_id,class5\n1,spiral\n")
    with pytest.raises(UsageError, match="none of the 1 labelled galaxies"):
        evaluate.evaluate_catalog(catalog, str(path), str(tmp_path), print)


def test_the_command_asks_for_one_thing_to_judge(table):
    result = CliRunner().invoke(app, ["evaluate", "--labels", table])
    assert isinstance(result.exception, UsageError)


def test_a_page_escapes_names_and_shows_classes():
    found = {
        "of": "<bundle>",
        "galaxies": {"voted": 0, "classes": 1},
        "clear_classes": {"accuracy": 1.0, "classes": ["round"], "confusion": [[1]]},
    }
    html = page.page(found)
    assert "&lt;bundle&gt;" in html
    assert "100.0% right" in html
