import hashlib
import json
import re
import shutil

import numpy as np
import pytest
from galaxy_images import write_images
from typer.testing import CliRunner

from gax_batch.cli import app
from gax_batch.errors import UsageError
from gax_batch.gz2 import DEFINITION
from gax_batch.models import bundle as bundles
from gax_batch.models.card import card_text

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
    with pytest.raises(UsageError, match=r"bayesian\.safetensors.*sha256"):
        bundles.load_bundle(str(folder))


@pytest.mark.parametrize("name", ["bundle.json", "svr.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(UsageError, match=rf"{name}.*--bundle"):
        bundles.load_bundle(str(folder))


def test_a_missing_folder_is_one_clear_line(tmp_path):
    with pytest.raises(UsageError, match=r"bundle\.json.*nowhere") as caught:
        bundles.load_bundle(str(tmp_path / "nowhere"))
    assert "\n" not in str(caught.value)


def test_an_unknown_format_version_is_refused(folder):
    rewrite(folder, format_version=99)
    with pytest.raises(UsageError, match=rf"\b99\b.*\b{bundles.FORMAT_VERSION}\b"):
        bundles.load_bundle(str(folder))


@pytest.mark.parametrize("name", ["../svr.safetensors", "/etc/passwd", "a/b", "a\\b", "..", ""])
def test_file_names_that_lead_elsewhere_are_refused(folder, name):
    files = json.loads((folder / "bundle.json").read_text())["files"]
    rewrite(folder, files=files | {name: {"sha256": "0"}})
    with pytest.raises(UsageError, match=re.escape(repr(name))):
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
    with pytest.raises(UsageError, match=r"^(?!.*sha256).*svr\.safetensors"):
        bundles.load_bundle(str(folder))


class TestForACatalog:
    """Its columns state the definition of the fractions, so that a bundle must have the same one."""

    def test_a_bundle_of_the_catalogs_definition_is_read(self, folder):
        rewrite(folder, definition=DEFINITION.name)
        loaded = bundles.load_catalog_bundle(str(folder))
        assert loaded.bundle_id == bundles.load_bundle(str(folder)).bundle_id

    @pytest.mark.parametrize("definition", ["weighted", "", 3, None, ["debiased"], "x" * 10_000])
    def test_another_definition_is_refused_in_one_line(self, folder, definition):
        rewrite(folder, definition=definition)
        with pytest.raises(UsageError) as caught:
            bundles.load_catalog_bundle(str(folder))
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500
        found = "definition" if definition is None else str(definition)[:50]
        for fact in (DEFINITION.name, bundles.load_bundle(str(folder)).bundle_id, found):
            assert fact in str(caught.value)

    def test_a_bundle_that_does_not_name_its_definition_is_refused(self, folder):
        with pytest.raises(UsageError, match=f"definition.*{DEFINITION.name}"):
            bundles.load_catalog_bundle(str(folder))

    def test_a_run_and_its_plan_refuse_it_before_they_start(self, folder, tmp_path):
        rewrite(folder, definition="weighted")
        write_images(tmp_path / "images", 1)
        settings = ["--input", str(tmp_path / "images"), "--catalog", str(tmp_path / "catalog")]
        for words in (
            ["run", *settings],
            ["plan", *settings],
            ["classify", str(tmp_path / "images" / "000000.jpg")],
        ):
            done = CliRunner().invoke(app, [*words, "--bundle", str(folder)])
            said = done.output + str(done.exception)
            assert done.exit_code != 0
            assert "weighted" in said
            assert DEFINITION.name in said
        assert not (tmp_path / "catalog").exists()


def test_the_shipped_bundle_is_small_and_its_card_has_its_numbers():
    loaded = bundles.load_catalog_bundle()
    manifest, text = loaded.manifest, card_text(loaded)
    assert loaded.bundle_id in text
    assert manifest["definition"] in text
    assert sum(entry["bytes"] for entry in manifest["files"].values()) < 20e6
    for name, found in manifest["metrics"].get("models", {}).items():
        assert name in text
        assert f"{found['rmse']:.4f}" in text
    for found in manifest["metrics"].get("intervals", {}).values():
        assert f"{found['coverage']:.1%}" in text
        assert f"{found['coverage_asked']:.1%}" in text
    assert manifest["limits"][-1] in text
