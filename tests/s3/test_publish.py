"""Publishing from a bucket into a bucket, on a store that fails one request in seven as well."""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from published_catalogs import write_part

from gax_batch import storage
from gax_batch.catalog import layout
from gax_batch.catalog.snapshots import Catalog
from gax_batch.export.formats import Format
from gax_batch.export.hats_catalog import publish_hats
from gax_batch.export.manifest import HatsSettings
from gax_batch.export.selection import Selection
from gax_batch.export.tables import publish_table
from gax_batch.export.votable import TableProvenance
from gax_batch.storage.listing import list_objects

pytest.importorskip("hats")

COLUMNS = Selection(("galaxy_id", "ra", "dec"))


def run(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    return map(function, items)


def tiles(output: str) -> dict[str, tuple[str, pa.Table]]:
    """Version and rows of each tile of the catalog."""
    return {
        info.uri: (info.version, pq.read_table(io.BytesIO(storage.read_bytes(info.uri)), partitioning=None))
        for info in list_objects(f"{output}/galaxies/dataset")
        if info.uri.endswith(".parquet")
    }


def test_a_catalog_is_published_and_brought_up_to_date(root: str, tmp_path: Path) -> None:
    catalog, output = f"{root}/catalog", f"{root}/hats"
    table = layout.table(catalog, layout.GALAXIES_TABLE)
    first = [write_part(catalog, 0), write_part(catalog, 1, place=(40.0, -30.0))]
    Catalog(catalog).commit(first, run_id="run-1", metadata={})

    def publish() -> int:
        opened = Catalog(catalog)
        settings = HatsSettings(COLUMNS, 100, 10.0)
        said = TableProvenance(catalog, opened.version or 0)
        return publish_hats(table, [part.key for part in opened.parts()], settings, said, output, run).written

    assert publish() > 2
    assert publish() == 0
    before = tiles(output)
    Catalog(catalog).commit(
        [write_part(catalog, 1, place=(40.0, -30.0), seed=1)], run_id="run-2", metadata={}
    )
    publish()
    after = tiles(output)
    names = [name for _, rows in after.values() for name in rows["galaxy_id"].to_pylist()]
    rows = Catalog(catalog).galaxies(["galaxy_id", "ra"])
    assert sorted(names) == sorted(rows.filter(rows["ra"].is_valid())["galaxy_id"].to_pylist())
    for uri, (version, rows) in after.items():
        changed = uri not in before or before[uri][0] != version
        assert changed == (rows["dec"].to_numpy() < 0).any()
    assert not list_objects(f"{output}/gax/staging", missing_ok=True)
    publish_table(
        table,
        [part.key for part in Catalog(catalog).parts()],
        COLUMNS,
        TableProvenance(catalog, 2),
        Format.FITS,
        f"{root}/all.fits",
    )
    (tmp_path / "all.fits").write_bytes(storage.read_bytes(f"{root}/all.fits"))
    assert len(Table.read(tmp_path / "all.fits")) == 400
