"""The page of a bundle's model card."""

import copy
import json

import pytest

from gax_batch.errors import UsageError
from gax_batch.models.bundle import Bundle, load_bundle
from training.card import write_card

GROUP = {"coverage": 0.9, "coverage_asked": 0.8, "width": 0.2, "width_asked": 0.3, "rmse": 0.1}
FIFTHS = [GROUP | {"from": i / 5, "to": (i + 1) / 5, "fractions": 1000 + i} for i in range(5)]


@pytest.fixture(scope="module")
def shipped():
    return load_bundle(None)


def with_looks(bundle, looks):
    manifest = copy.deepcopy(dict(bundle.manifest))
    manifest["metrics"].pop("by_look", None)
    manifest["metrics"] |= looks
    return Bundle(bundle.bundle_id, json.loads(json.dumps(manifest)), {})


def test_the_page_shows_every_figure_that_is_written(shipped, tmp_path):
    looks = {"by_look": {"size": FIFTHS, "brightness": FIFTHS, "sharpness": FIFTHS}}
    text = write_card(with_looks(shipped, looks), tmp_path).read_text()
    pictures = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert "model-card-coverage-looks.svg" in pictures
    assert all(f"({name})" in text for name in pictures)
    for number, look in ((0, "size"), (2, "brightness"), (4, "sharpness")):
        numbers = f"{1000 + number:,} | 0.1000 | 90.0% | 80.0% | 0.200 | 0.300"
        assert f"| {look} | {number + 1} | {numbers} |" in text


def test_a_bundle_that_was_measured_without_images_has_no_table_of_looks(shipped, tmp_path):
    text = write_card(with_looks(shipped, {}), tmp_path).read_text()
    assert "| sharpness |" not in text
    assert not (tmp_path / "model-card-coverage-looks.svg").exists()


def test_a_bundle_without_numbers_is_refused(tmp_path):
    with pytest.raises(UsageError):
        write_card(Bundle("tiny", {"metrics": {}}, {}), tmp_path)
