"""The metadata files of a HATS catalog: properties, partitions, Parquet metadata, and maps.

They follow the IVOA Note on HATS. The `hats` library writes them to a local folder. Then each file is stored
as a whole, the properties last.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gax_batch import __version__, storage
from gax_batch.catalog.schema import DESCRIPTION
from gax_batch.export.manifest import CATALOG, COLLECTION, README, HatsSettings
from gax_batch.export.readme import MARK, default_columns, readme
from gax_batch.export.selection import described
from gax_batch.export.tasks import INDEX, WrittenTile
from gax_batch.export.tiling import CELL_ORDER, INDEX_ORDER, Ints, histogram_of
from gax_batch.export.votable import TableProvenance, voparquet, votable_header
from gax_batch.system.concurrency import map_threads

MAP_ORDER = 8
"""HEALPix order of the maps of galaxy positions (pixels of 14 arcmin)."""

_COMMON, _METADATA = "dataset/_common_metadata", "dataset/_metadata"
_PARTITIONS = "partition_info.csv"
_PROPERTIES = ("hats.properties", "properties")
_MAPS = ("point_map.fits", "skymap.fits")


@dataclass(frozen=True, slots=True)
class Sky:
    """Settings, provenance and sky distribution of a published snapshot.

    Attributes:
        settings: Settings of the HATS catalog.
        provenance: Provenance of the rows.
        schema: Columns of a tile.
        cells: HEALPix pixels of `CELL_ORDER` that have galaxies, int64 `[C]`.
        counts: Number of galaxies in each of these pixels, int64 `[C]`.
    """

    settings: HatsSettings
    provenance: TableProvenance
    schema: pa.Schema
    cells: Ints
    counts: Ints


def metadata_keys(settings: HatsSettings, *, margin: bool) -> list[str]:
    """Return the keys, relative to the output, of the files that `write_catalog` writes."""
    names = [_COMMON, _METADATA, _PARTITIONS, *_PROPERTIES, *(() if margin else _MAPS)]
    return [f"{settings.folder(margin=margin)}/{name}" for name in names]


def write_catalog(output: str, sky: Sky, tiles: Sequence[WrittenTile], *, margin: bool) -> None:
    """Write the metadata of the catalog, or of its margin cache, after all of its tiles.

    Raises:
        OSError: A file cannot be read or written.
        TransientError: The store kept failing.
    """
    from hats.catalog import PartitionInfo, TableProperties
    from hats.io.file_io.file_io import write_fits_image
    from hats.pixel_math import HealpixPixel

    folder = storage.join(output, sky.settings.folder(margin=margin))
    pixels = [HealpixPixel(tile.tile.order, tile.tile.pixel) for tile in tiles]
    header = votable_header(
        [INDEX, *described(sky.settings.selection.columns)],
        sky.provenance,
        rows=sum(tile.rows for tile in tiles),
    )
    with tempfile.TemporaryDirectory(prefix="gax-") as name:
        local = Path(name)
        (local / "dataset").mkdir()
        common = sky.schema.with_metadata(voparquet(header))
        pq.write_metadata(common, local / _COMMON)
        pq.write_metadata(common, local / _METADATA, metadata_collector=_footers(folder, tiles))
        PartitionInfo(pixels).write_to_file(local / _PARTITIONS)
        if not margin:
            histogram = histogram_of(sky.cells, sky.counts, MAP_ORDER)
            for map_name in _MAPS:
                write_fits_image(histogram, local / map_name)
        TableProperties(**_properties(sky, tiles, margin=margin)).to_properties_file(local)
        for key in metadata_keys(sky.settings, margin=margin):
            inner = key.partition("/")[2]
            storage.upload(local / inner, storage.join(folder, inner))


def write_collection(output: str, sky: Sky, tiles: Sequence[WrittenTile]) -> None:
    """Write the properties of the collection, which readers open, and a README.

    An existing README that `gax publish` did not write is kept.

    Args:
        output: URI of the collection.
        sky: Snapshot on the sky.
        tiles: Tiles of the catalog and of its margin cache.
    """
    from hats.catalog.dataset.collection_properties import CollectionProperties

    values = {"obs_collection": CATALOG, "hats_primary_table_url": CATALOG}
    if sky.settings.margin_arcsec:
        name = sky.settings.folder(margin=True)
        values |= {"all_margins": name, "default_margin": name}
    with tempfile.TemporaryDirectory(prefix="gax-") as local:
        size = sum(tile.size for tile in tiles)
        CollectionProperties(**values, **_provenance(sky, size)).to_properties_file(local)
        storage.upload(Path(local) / COLLECTION, storage.join(output, COLLECTION))
    if _may_write(storage.join(output, README)):
        rows = sum(tile.rows for tile in tiles if not tile.tile.margin)
        text = readme(sky.provenance, sky.settings.selection.columns, rows, sky.settings.margin_arcsec)
        storage.write_bytes(storage.join(output, README), text.encode())


def _may_write(uri: str) -> bool:
    try:
        return storage.read_bytes(uri).startswith(MARK.encode())
    except FileNotFoundError:
        return True


def _properties(sky: Sky, tiles: Sequence[WrittenTile], *, margin: bool) -> dict[str, Any]:
    rows = [tile.rows for tile in tiles]
    values: dict[str, Any] = {
        "catalog_name": sky.settings.folder(margin=margin),
        "catalog_type": "margin" if margin else "object",
        "total_rows": sum(rows),
        "ra_column": "ra",
        "dec_column": "dec",
        "healpix_column": INDEX.name,
        "healpix_order": INDEX_ORDER,
        "hats_max_rows": max(rows, default=0),
        "hats_max_bytes": max((tile.size for tile in tiles), default=0),
        "default_columns": default_columns(sky.settings.selection.columns),
        "hats_order": max((tile.tile.order for tile in tiles), default=None),
    }
    if margin:
        values |= {"primary_catalog": CATALOG, "margin_threshold": sky.settings.margin_arcsec}
    else:
        fraction = len(set((sky.cells >> 2 * (CELL_ORDER - MAP_ORDER)).tolist())) / (12 * 4**MAP_ORDER)
        values |= {"skymap_order": MAP_ORDER, "moc_sky_fraction": fraction}
    return values | _provenance(sky, sum(tile.size for tile in tiles))


def _provenance(sky: Sky, size: int) -> dict[str, Any]:
    from hats.catalog import TableProperties

    source = sky.provenance
    facts: dict[str, Any] = TableProperties.new_provenance_dict(
        builder=f"gax-batch v{__version__}",
        obs_description=DESCRIPTION,
        prov_progenitor=f"{source.catalog} snapshot {source.snapshot}",
    )
    for key, value in (
        ("obs_title", source.title),
        ("bib_reference", source.reference),
        ("obs_copyright", source.license),
    ):
        if value is not None:
            facts[f"{key}_url" if key != "obs_title" and _is_url(value) else key] = value
    ours = {f"gax_{name}": value for name, value, _ in source.items()}
    return facts | ours | {"hats_estsize": size // 1024, "hats_creation_date": f"{source.published}UTC"}


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _footers(folder: str, tiles: Sequence[WrittenTile]) -> list[pq.FileMetaData]:
    def read(tile: WrittenTile) -> pq.FileMetaData:
        with storage.open_binary(storage.join(folder, tile.tile.key)) as file:
            footer = pq.read_metadata(file)
        footer.set_file_path(tile.tile.key.removeprefix("dataset/"))
        return footer

    return list(map_threads(read, tiles))
