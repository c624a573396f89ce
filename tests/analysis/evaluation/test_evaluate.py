import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fake_engine import FakeEngine
from galaxy_images import write_images
from labeled_galaxies import write_table
from typer.testing import CliRunner

from gax_batch import gz2, storage
from gax_batch.analysis.evaluation import evaluate, training_set
from gax_batch.analysis.evaluation.metrics import LEVELS
from gax_batch.analysis.evaluation.page import figures, page
from gax_batch.analysis.labels import read_labels
from gax_batch.cli import app
from gax_batch.errors import UsageError
from gax_batch.imaging.decoding import Decoder
from gax_batch.models import engine
from gax_batch.models.bundle import Bundle
from gax_batch.models.predictive import GRID, GROUPS, Predictive

COUNT = 30


@pytest.fixture
def truth():
    rng = np.random.default_rng(0)
    return gz2.conditional(rng.gamma(0.8, size=(COUNT, gz2.N_ANSWERS)) + 1e-3)


@pytest.fixture
def table(tmp_path, truth):
    """Weighted votes of g0 to g29."""
    header = ["asset_id", "total_classifications", *gz2.HART16_COLUMNS]
    return write_table(tmp_path / "votes.csv", header, [[f"g{i}", 40, *row] for i, row in enumerate(truth)])


@pytest.fixture
def challenge(tmp_path, truth):
    """The same as debiased fractions."""
    rows = [[f"g{i}", *row] for i, row in enumerate(gz2.cumulative(truth))]
    return write_table(tmp_path / "challenge.csv", ["GalaxyID", *gz2.CHALLENGE_COLUMNS], rows)


@pytest.fixture
def manifest(monkeypatch):
    """That of the bundle `known-1`, which is at hand whatever is asked for."""
    calibration = {"combinations": {"bayesian+svr": Predictive.certain().as_json()}}
    values = {"definition": "weighted", "training": {"ids_sha256": []}, "calibration": calibration}
    monkeypatch.setattr(evaluate, "load_bundle", lambda uri: Bundle("known-1", values, {}))
    return values


@pytest.fixture
def catalog(monkeypatch, truth, manifest):
    """A catalog of the last 20 of them and of 5 others, in another order, with known errors."""
    prob = np.clip(gz2.cumulative(truth)[::-1][:25] + 0.05, 0, 1).astype(np.float32)
    names = [f"g{i}" for i in range(29, 9, -1)] + [f"other{i}" for i in range(5)]
    columns = {"galaxy_id": names, "bundle_id": ["known-1"] * 25}
    for index, answer in enumerate(gz2.ANSWERS):
        for kind, shift in (("prob", 0), ("std", 0), ("lo", -0.1), ("hi", 0.1)):
            columns[f"{answer}_{kind}"] = prob[:, index] + np.float32(shift)

    class Stored:
        def __init__(self, uri):
            self.uri = uri

        def galaxies(self, columns=None):
            return pa.table(stored).select(columns)

    stored = columns
    monkeypatch.setattr(evaluate, "Catalog", Stored)
    return stored


@pytest.fixture
def images(monkeypatch, tmp_path, manifest):
    """A folder of g0 to g29, and an engine that needs no bundle."""
    write_images(tmp_path / "images", COUNT)
    for number in range(COUNT):
        (tmp_path / "images" / f"{number:06d}.jpg").rename(tmp_path / "images" / f"g{number}.jpg")
    monkeypatch.setattr(engine, "Engine", lambda bundle, draws: FakeEngine())
    return str(tmp_path / "images")


def test_a_catalog_is_judged_on_the_galaxies_it_shares_with_the_labels(catalog, table, tmp_path, messages):
    found = evaluate.evaluate_catalog("a-catalog", table, str(tmp_path / "out"))
    assert found["galaxies"] == {"voted": 20, "classes": 0, "largest": 0}
    assert found["definition"] == {"predictions": "weighted", "labels": "weighted"}
    assert found["points"]["rmse"] == pytest.approx(0.05, abs=0.002)
    assert found["intervals"]["0.9"]["coverage"] == 1
    assert found["intervals"]["0.9"]["interval_score"] == pytest.approx(0.2, abs=0.01)
    assert any(re.search(r"\b10\b.*\bg0, g1, g2\b", line) for line in messages)
    assert any(re.search(r"\b5\b.*\bother0, other1, other2\b", line) for line in messages)
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == found
    html = (tmp_path / "out" / "evaluation.html").read_text()
    assert html.count("<svg") == html.count("</svg>") > 5
    # A catalog has no images.
    assert "by_look" not in found


def test_labels_of_other_galaxies_are_refused(catalog, tmp_path):
    path = write_table(tmp_path / "classes.csv", ["galaxy_id", "class5"], [["1", "spiral"]])
    with pytest.raises(UsageError, match=r"\b1\b"):
        evaluate.evaluate_catalog("a-catalog", path, str(tmp_path), allow_other_definition=True)


def test_labels_of_another_definition_are_refused_unless_allowed(catalog, challenge, tmp_path, messages):
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=r"debiased.*weighted.*--allow-other-definition") as refusal:
        evaluate.evaluate_catalog("a-catalog", challenge, str(out))
    assert "\n" not in str(refusal.value)
    assert not out.exists()
    found = evaluate.evaluate_catalog("a-catalog", challenge, str(out), allow_other_definition=True)
    assert found["definition"] == {"predictions": "weighted", "labels": "debiased"}
    assert any("debiased" in line and "weighted" in line for line in messages)
    assert "debiased" in (out / "evaluation.html").read_text()


def test_a_catalog_of_another_bundle_needs_its_definition(catalog, challenge, tmp_path):
    catalog["bundle_id"] = ["unknown-7"] * 25
    with pytest.raises(UsageError, match=r"unknown-7.*--bundle.*--definition"):
        evaluate.evaluate_catalog("a-catalog", challenge, str(tmp_path))
    found = evaluate.evaluate_catalog("a-catalog", challenge, str(tmp_path), definition="debiased")
    assert found["definition"] == {"predictions": "debiased", "labels": "debiased"}
    assert found["trained_the_bundle"]["known"] is False


def test_a_bundle_that_does_not_state_its_definition_has_weighted_fractions():
    assert evaluate.definition_of({}) == "weighted"
    assert evaluate.definition_of({"definition": "debiased"}) == "debiased"


def test_galaxies_of_a_catalog_that_trained_its_bundle_are_left_out(catalog, table, manifest, tmp_path):
    digests = training_set.id_digests(read_labels(table))
    manifest["training"]["ids_sha256"] = sorted(digests[25:])
    found = evaluate.evaluate_catalog("a-catalog", table, str(tmp_path))
    assert found["trained_the_bundle"] == {"known": True, "galaxies": 5, "by_id": 5, "by_pixels": 0}
    assert found["galaxies"]["voted"] == 15
    manifest["training"]["ids_sha256"] = sorted(digests)
    with pytest.raises(UsageError, match=r"\b20\b"):
        evaluate.evaluate_catalog("a-catalog", table, str(tmp_path))


def test_galaxies_that_trained_a_bundle_are_left_out_by_id_and_by_pixels(
    images, table, manifest, tmp_path, messages
):
    pictures = [
        Decoder().decode(storage.read_bytes(storage.normalize_uri(f"{images}/g{i}.jpg")))[0]
        for i in (1, 2, 3)
    ]
    manifest["training"] = {
        "ids_sha256": sorted(training_set.id_digests(read_labels(table))[:2]),
        "pixels_sha256": sorted(training_set.pixel_digests(np.stack(pictures))),
    }
    found = evaluate.evaluate_bundle(None, table, images, str(tmp_path / "out"), 4)
    assert found["trained_the_bundle"] == {"known": True, "galaxies": 4, "by_id": 2, "by_pixels": 3}
    assert found["galaxies"]["voted"] == COUNT - 4
    assert any(re.findall(r"\d+", line) == ["4", "2", "3"] for line in messages)


def test_images_in_a_folder_of_zips_are_judged_as_those_in_a_folder(images, table, manifest, tmp_path):
    (tmp_path / "zips").mkdir()
    with zipfile.ZipFile(tmp_path / "zips" / "all.zip", "w") as archive:
        for path in Path(images).iterdir():
            archive.write(path, f"images/{path.name}")
    plain, zipped = (
        evaluate.evaluate_bundle(None, table, place, str(tmp_path / "out"), 4)
        for place in (images, str(tmp_path / "zips"))
    )
    assert zipped == plain


def test_a_bundle_is_judged_by_its_predictive_distribution(images, table, manifest, tmp_path):
    scale = np.tile(np.array([0.01, 0, 1], np.float32), (gz2.N_QUESTIONS, 1))
    reach = np.tile(np.linspace(-3, 3, len(GRID), dtype=np.float32), (gz2.N_QUESTIONS, *GROUPS, 1))
    fitted = Predictive(scale, reach)
    manifest["calibration"]["combinations"]["bayesian+svr"] = fitted.as_json()
    found = evaluate.evaluate_bundle(None, table, images, str(tmp_path / "out"), 4)
    assert found["of"] == "known-1"
    assert set(found["distribution"]["all"]["interval_score"]) == {f"{level:g}" for level in LEVELS}
    widths = [found["intervals"][f"{level:g}"]["width"] for level in LEVELS]
    assert 0 < widths[0] < widths[1] < widths[2] < widths[3] < 1
    assert sum(found["distribution"]["asked"]["pit"]) == pytest.approx(1, abs=1e-3)
    html = (tmp_path / "out" / "evaluation.html").read_text()
    drawings = figures(found)
    assert drawings["pit"] in html
    assert drawings["coverage-looks"] in html
    assert "conditional" not in found


def test_intervals_of_conditional_fractions_are_judged_where_the_bundle_has_them(
    images, table, manifest, tmp_path
):
    combination = manifest["calibration"]["combinations"]["bayesian+svr"]
    combination["conditional"] = Predictive.certain(conditional=True).as_json()
    found = evaluate.evaluate_bundle(None, table, images, str(tmp_path / "out"), 4)
    assert found["conditional"]["galaxies"] == COUNT
    assert set(found["conditional"]["questions"]) == set(gz2.QUESTION_NAMES)
    assert found["conditional"]["width"] == 0
    html = (tmp_path / "out" / "evaluation.html").read_text()
    assert html == page(found)
    without = {name: value for name, value in found.items() if name != "conditional"}
    assert html.count("<tr>") > page(without).count("<tr>")


def test_a_bundle_is_judged_by_the_look_of_the_images_that_did_not_train_it(
    images, table, manifest, tmp_path
):
    trained = sorted(training_set.id_digests(read_labels(table))[: COUNT // 2])
    manifest["training"]["ids_sha256"] = trained
    found = evaluate.evaluate_bundle(None, table, images, str(tmp_path / "out"), 4)
    assert set(found["by_look"]) == {"size", "brightness", "sharpness"}
    interval = found["intervals"]["0.9"]
    for fifths in found["by_look"].values():
        assert [group["fractions"] for group in fifths] == [COUNT // 10 * gz2.N_ANSWERS] * 5
        squares = np.mean([group["rmse"] ** 2 for group in fifths])
        assert squares == pytest.approx(found["points"]["rmse"] ** 2, abs=1e-3)
        # The catalog's own columns are judged, which this engine makes wider than the bundle's intervals.
        assert np.mean([group["width"] for group in fifths]) > interval["width"] == 0


def test_tables_of_facts_judge_classes_and_the_largest_fraction(images, manifest, tmp_path):
    manifest["definition"] = "debiased"
    classes = [["g0", "spiral"], ["g1", "round"], ["g2", ""]]
    path = write_table(tmp_path / "classes.csv", ["galaxy_id", "class5"], classes)
    found = evaluate.evaluate_bundle(None, path, images, str(tmp_path / "out"), 4)
    assert found["clear_classes"]["galaxies"] == 2
    assert "points" not in found
    path = write_table(tmp_path / "largest.csv", ["GalaxyID", "argmax"], [["g0", "Class1.1"]])
    found = evaluate.evaluate_bundle(None, path, images, str(tmp_path / "out"), 4)
    assert found["largest"]["galaxies"] == 1


def test_some_questions_of_the_challenge_judge_these_questions(images, truth, manifest, tmp_path):
    manifest["definition"] = "debiased"
    columns = gz2.CHALLENGE_COLUMNS[:5]
    rows = [[f"g{i}", *row[:5]] for i, row in enumerate(gz2.cumulative(truth))]
    path = write_table(tmp_path / "some.csv", ["GalaxyID", *columns], rows)
    found = evaluate.evaluate_bundle(None, path, images, str(tmp_path / "out"), 4)
    assert found["fractions"] == COUNT * 5
    assert set(found["points"]["questions"]) == set(gz2.QUESTION_NAMES[:2])


def test_the_command_asks_for_one_thing_to_judge(table):
    for arguments in ([], ["--images", "x", "--catalog", "y"], ["--images", "x", "--definition", "debiased"]):
        result = CliRunner().invoke(app, ["evaluate", "--labels", table, *arguments])
        assert isinstance(result.exception, UsageError)


def test_the_command_passes_its_options_on(catalog, challenge, tmp_path):
    arguments = ["--labels", challenge, "--catalog", "a-catalog", "--output", str(tmp_path / "out")]
    refused = CliRunner().invoke(app, ["evaluate", *arguments])
    assert isinstance(refused.exception, UsageError)
    allowed = CliRunner().invoke(app, ["evaluate", *arguments, "--allow-other-definition"])
    assert allowed.exit_code == 0
    catalog["bundle_id"] = ["unknown-7"] * 25
    stated = CliRunner().invoke(app, ["evaluate", *arguments, "--definition", "debiased"])
    assert stated.exit_code == 0
