"""A small catalog with everything that its pages show, and names that attack the pages."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from catalogs import catalog_of
from fake_engine import FakeEngine
from galaxy_images import write_images

from gax_batch.catalog.snapshots import Catalog
from gax_batch.cluster.unit import UnitOptions
from gax_batch.imaging.decoding import Decoder
from gax_batch.models.bundle import load_bundle
from gax_batch.models.uncertainty import Summary
from gax_batch.sources import open_source

HOSTILE = "<script>alert(1)<\\script>&\"'{{7*7}}"
COUNT = 30


class DimmerEngine(FakeEngine):
    """Says something else of the same pixels."""

    def summarize(self, images: np.ndarray) -> Summary:
        return super().summarize((images // 2).astype(np.uint8))


class Positioned:
    """Loose images, two of three of them with a position."""

    ignored = 0

    def __init__(self, survey: Path) -> None:
        self._source = open_source(str(survey))

    def list_members(self):
        for members in self._source.list_members():
            count = len(members)
            known = [row % 3 > 0 for row in range(count)]
            for name, step in (("ra", 11.0), ("dec", 2.5)):
                place = members.schema.get_field_index(name)
                values = [row * step if there else None for row, there in enumerate(known)]
                members = members.set_column(place, name, pa.array(values, pa.float64()))
            yield members


def survey_of_hostile_names(root: Path) -> Path:
    """Images below `root`, and two that are none."""
    images = root / "images"
    write_images(images, COUNT)
    shutil.copy(images / "000001.jpg", images / f"{HOSTILE}.jpg")
    (images / f"{HOSTILE}-bad.jpg").write_bytes(b"<img src=x onerror=alert(1)>")
    (images / "empty.jpg").write_bytes(b"")
    return root


def catalog_twice(survey: Path) -> str:
    """Two snapshots: every galaxy moved between them, and two sources have gone since."""
    options = UnitOptions(
        catalog=str(survey / "catalog"),
        settings_fingerprint="first",
        bundle_id=load_bundle().bundle_id,
        run_id="run-1",
        decoder=Decoder(),
    )
    catalog_of(survey / "images", options, Positioned(survey / "images"))
    second = replace(options, settings_fingerprint="second", run_id="run-2")
    catalog_of(survey / "images", second, Positioned(survey / "images"), DimmerEngine())
    assert Catalog(options.catalog).version == 2
    (survey / "images" / "000003.jpg").unlink()
    (survey / "images" / "000004.jpg").write_bytes(b"something else")
    return options.catalog
