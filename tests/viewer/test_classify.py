"""Images that are classified without a run, by an engine without TensorFlow."""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_engine import FakeEngine
from PIL import Image
from simulated_galaxies import OTHER_CAMERAS, Images, galaxies

from gax_batch.imaging.decoding import Decoder
from gax_batch.models.bundle import load_bundle
from gax_batch.models.domain import fit_reference
from gax_batch.system.messages import redirect_messages
from gax_batch.viewer import classify


@pytest.fixture(autouse=True)
def without_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = SimpleNamespace(Engine=lambda *_, **__: FakeEngine())
    monkeypatch.setitem(sys.modules, "gax_batch.models.engine", engine)
    shipped = load_bundle()
    known = replace(shipped, manifest=shipped.manifest | {"domain": fit_reference(galaxies(512))})
    monkeypatch.setattr(classify, "load_catalog_bundle", lambda _: known)


def warnings_of(images: Images, folder: Path) -> list[str]:
    paths = [folder / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    lines: list[str] = []
    with redirect_messages(lines.append):
        rows = classify.classify_images(
            [str(path) for path in paths],
            bundle=None,
            models=("bayesian",),
            draws=2,
            passes=2,
            precision="float32",
            decoder=Decoder(),
        )
    assert len(rows) == len(images)
    return lines


def test_images_of_another_survey_are_warned_of(tmp_path):
    images = galaxies(60, seed=1)
    assert warnings_of(images, tmp_path) == []
    assert warnings_of(OTHER_CAMERAS["blurred"](images), tmp_path)
    assert warnings_of(OTHER_CAMERAS["blurred"](images)[:5], tmp_path) == []
