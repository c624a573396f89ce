import hashlib
import json
import shutil

import numpy as np
import pytest

from gax_batch.errors import UsageError
from gax_batch.models import bundle as bundles
from gax_batch.models.card import card_json, card_text

MANIFEST = {"name": "tiny", "seed": 1, "preprocessing": {"side": 64}, "calibration": {}}


@pytest.fixture
def folder(tmp_path):
    arrays = {model: {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3)} for model in bundles.MODELS}
    bundles.save_bundle(tmp_path / "tiny", MANIFEST, arrays)
    return tmp_path / "tiny"


def rewrite(folder, **changes):
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_bundle_survives_the_way_to_disk_and_back(folder):
    loaded = bundles.load_bundle(str(folder))
    np.testing.assert_array_equal(loaded.arrays["svr"]["a/b"], [[0, 1, 2], [3, 4, 5]])
    assert loaded.manifest["seed"] == 1
    assert loaded.manifest["format_version"] == bundles.FORMAT_VERSION


def test_the_id_is_the_name_and_follows_the_contents(folder, tmp_path):
    first = bundles.load_bundle(str(folder)).bundle_id
    assert first.startswith("tiny-")
    assert len(first) == len("tiny-") + 12
    copied = shutil.copytree(folder, tmp_path / "copy")
    assert bundles.load_bundle(f"file://{copied}").bundle_id == first
    arrays = {model: {"a/b": np.ones(6, np.float32)} for model in bundles.MODELS}
    assert bundles.save_bundle(tmp_path / "tiny", MANIFEST, arrays) != first


def test_a_changed_file_is_refused(folder):
    path = folder / "bayesian.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"bayesian\.safetensors .* sha256.*copy it again"):
        bundles.load_bundle(str(folder))


@pytest.mark.parametrize("name", ["bundle.json", "svr.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UsageError, match=rf"no {name} .*--bundle"):
        bundles.load_bundle(str(folder))


def test_a_missing_folder_is_one_clear_line(tmp_path):
    with pytest.raises(UsageError, match=r"no bundle\.json") as caught:
        bundles.load_bundle(str(tmp_path / "nowhere"))
    assert "\n" not in str(caught.value)


def test_an_unknown_format_version_is_refused(folder):
    rewrite(folder, format_version=99)
    with pytest.raises(UsageError, match=r"format version 99.*matching release"):
        bundles.load_bundle(str(folder))


@pytest.mark.parametrize("name", ["../svr.safetensors", "/etc/passwd", "a/b", "a\\b", "..", ""])
def test_file_names_that_lead_elsewhere_are_refused(folder, name):
    files = json.loads((folder / "bundle.json").read_text())["files"]
    rewrite(folder, files=files | {name: {"sha256": "0"}})
    with pytest.raises(UsageError, match="outside its folder"):
        bundles.load_bundle(str(folder))


@pytest.mark.parametrize(
    "text", ["not json", "[]", "{}", '{"format_version": 1}', '{"format_version": 1, "files": 3}']
)
def test_a_broken_manifest_is_refused(folder, text):
    (folder / "bundle.json").write_text(text)
    with pytest.raises(UsageError):
        bundles.load_bundle(str(folder))


def test_a_file_that_is_no_safetensors_is_refused(folder):
    (folder / "svr.safetensors").write_bytes(b"junk")
    files = json.loads((folder / "bundle.json").read_text())["files"]
    rewrite(folder, files=files | {"svr.safetensors": {"sha256": hashlib.sha256(b"junk").hexdigest()}})
    with pytest.raises(UsageError, match="no safetensors file"):
        bundles.load_bundle(str(folder))


def test_a_bundle_without_numbers_still_has_a_card(folder):
    loaded = bundles.load_bundle(str(folder))
    assert "not recorded" in card_text(loaded)
    assert json.loads(card_json(loaded))["seed"] == 1


def test_the_shipped_bundle_is_small_and_says_how_good_it_is():
    loaded = bundles.load_bundle()
    assert sum(entry["bytes"] for entry in loaded.manifest["files"].values()) < 12e6
    points = loaded.manifest["metrics"]["points"]
    for name in ("bayesian", "svr", "classic", "blend"):
        assert points[name]["rmse"] < 0.75 * points["mean of training"]["rmse"]
    for level, found in loaded.manifest["metrics"]["intervals"].items():
        assert found["coverage"] == pytest.approx(float(level), abs=0.02)
    assert loaded.manifest["metrics"]["out_of_distribution"]["auc"] > 0.9
    text = card_text(loaded)
    assert loaded.bundle_id in text
    assert f"{points['blend']['rmse']:.4f}" in text
