"""Publish a catalog as a HATS collection, or update the collection to a new snapshot.

The steps are: remove the tiles that will change from the manifest, write their files, write the metadata,
remove the files that are no longer part of the publication, and mark the manifest as complete. After an
interruption at any step, the next publication knows which files it can trust. Each file is stored whole.
While a publication runs, a reader sees tiles of the previous snapshot and of the new one.
"""

import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gax_batch import storage
from gax_batch.errors import UsageError
from gax_batch.export.hats_metadata import Sky, metadata_keys, write_catalog, write_collection
from gax_batch.export.manifest import (
    COLLECTION,
    README,
    STAGING,
    HatsSettings,
    Manifest,
    TileRecord,
    left_over,
    list_output,
)
from gax_batch.export.pixel_counts import PixelCounts
from gax_batch.export.tasks import (
    COUNTS,
    GatherTask,
    PartSelection,
    Piece,
    Runner,
    ScatterTask,
    Tile,
    WrittenTile,
    count,
    gather,
    scatter,
    sky_schema,
)
from gax_batch.export.tiling import Tiling
from gax_batch.export.votable import TableProvenance
from gax_batch.system.disk_database import Scratch

# Counting reads only three columns. Sorting keeps all columns in memory, about 0.8 kB a row.
COUNT_PARTS = 256
SCATTER_ROWS = 131_072
SAVE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class PublishedSky:
    """Numbers of a published HATS catalog, and of the files that the publication wrote.

    Attributes:
        rows: Number of galaxies in the catalog.
        without_position: Number of selected galaxies that are omitted because they have no position.
        tiles: Number of tiles of the catalog.
        written: Number of tiles and margins that were written.
        removed: Number of files that were removed.
    """

    rows: int
    without_position: int
    tiles: int
    written: int
    removed: int


@dataclass(frozen=True, slots=True)
class _TilePlan:
    """Tiles that the output must have, the digest of each tile's sources, and the tiles to write."""

    tiling: Tiling
    digests: dict[Tile, str]
    wanted: list[Tile]


def publish_hats(
    root: str,
    keys: Sequence[str],
    settings: HatsSettings,
    provenance: TableProvenance,
    output: str,
    run: Runner,
    *,
    replace_it: bool = False,
) -> PublishedSky:
    """Bring a HATS collection up to date with a snapshot.

    Args:
        root: URI of the table of galaxies.
        keys: Keys of the snapshot's parts.
        settings: Settings of the collection.
        provenance: Provenance of the rows; the bundles are added to it.
        output: Normalized URI of the collection.
        run: Function that runs the tasks.
        replace_it: Whether to replace a publication of another selection.

    Raises:
        UsageError: The output contains other files or another selection, or no galaxy can be published.
        FatalError: A part is missing or unreadable.
        OSError: The output cannot be written.
        TransientError: The store kept failing.
    """
    there = list_output(output)
    manifest = Manifest.read(output, provenance.catalog, there)
    if not replace_it:
        manifest.require_same(settings.selection, output)
    with tempfile.TemporaryDirectory(prefix="gax-") as folder, Scratch(Path(folder)) as scratch:
        counts = _counts(root, keys, settings, output, settings.counts_key in there, run)
        counted = PixelCounts(scratch, keys, counts)
        rows, nowhere, bundles = counted.totals()
        if rows == nowhere:
            raise UsageError(
                f"none of the {rows:,} selected galaxies has a position, which a HATS catalog needs; "
                "run gax run with --positions, or publish another format"
            )
        cells, numbers = counted.cells()
        sky = Sky(
            settings, replace(provenance, bundle_ids=bundles), sky_schema(settings.selection), cells, numbers
        )
        tiling = Tiling.of_counts(cells, numbers, settings.pixel_threshold, settings.margin_arcsec)
        plan = _plan_tiles(counted, tiling, settings, manifest, there)
        done = PublishedSky(rows - nowhere, nowhere, int(tiling.occupied.sum()), len(plan.wanted), 0)
        if not plan.wanted and _is_whole(manifest, sky, there):
            return done
        manifest.snapshot = None
        manifest.settings = settings.as_json()
        trusted = plan.digests.keys() - set(plan.wanted)
        manifest.tiles = {tile: held for tile, held in manifest.tiles.items() if tile in trusted}
        manifest.write(output)
        counted.save(Path(folder) / "counts.parquet")
        storage.upload(Path(folder) / "counts.parquet", storage.join(output, settings.counts_key))
        _write_tiles(root, counted, plan, sky, manifest, output, run)
    _write_metadata(output, sky, manifest)
    removed = list(left_over(list_output(output), _kept(sky, manifest)))
    for key in removed:
        storage.delete(storage.join(output, key))
    manifest.snapshot = provenance.snapshot
    manifest.write(output)
    return replace(done, removed=sum(not key.startswith(STAGING) for key in removed))


def _counts(
    root: str, keys: Sequence[str], settings: HatsSettings, output: str, saved: bool, run: Runner
) -> Iterator[pa.Table]:
    """Yield `COUNTS` of every part: saved ones of an earlier publication, and those of new parts."""
    known: set[str] = set()
    if saved:
        with (
            storage.open_binary(storage.join(output, settings.counts_key)) as file,
            pq.ParquetFile(file) as counted,
        ):
            for batch in counted.iter_batches():
                known.update(batch["part"].unique().to_pylist())
                yield pa.Table.from_batches([batch]).cast(COUNTS)
    new = [key for key in keys if key not in known]
    groups = [tuple(new[start : start + COUNT_PARTS]) for start in range(0, len(new), COUNT_PARTS)]
    yield from run(count, [PartSelection(root, group, settings.selection) for group in groups])


def _plan_tiles(
    counted: PixelCounts, tiling: Tiling, settings: HatsSettings, manifest: Manifest, there: dict[str, int]
) -> _TilePlan:
    digests = {
        tile: settings.digest(tile, origin.fingerprint) for tile, origin in counted.origins(tiling).items()
    }

    def is_there(tile: Tile) -> bool:
        held = manifest.tiles.get(tile)
        if held is None or held.digest != digests[tile]:
            return False
        return held.rows == 0 or there.get(settings.key(tile)) == held.size

    return _TilePlan(tiling, digests, sorted(tile for tile in digests if not is_there(tile)))


def _is_whole(manifest: Manifest, sky: Sky, there: dict[str, int]) -> bool:
    """Return whether the output is complete: same snapshot, all files, and no others."""
    kept = _kept(sky, manifest)
    same = manifest.snapshot == sky.provenance.snapshot
    return same and kept <= there.keys() and not any(left_over(there, kept))


def _kept(sky: Sky, manifest: Manifest) -> set[str]:
    """Return the keys of all objects that belong to the publication."""
    kept = {sky.settings.counts_key, COLLECTION, README}
    for margin in sky.settings.kinds:
        kept.update(metadata_keys(sky.settings, margin=margin))
        kept.update(sky.settings.key(tile.tile) for tile in _files(manifest, margin=margin))
    return kept


def _files(manifest: Manifest, *, margin: bool) -> list[WrittenTile]:
    """Return the tiles, or the margins, that have a file."""
    return [
        WrittenTile(tile, held.rows, held.size)
        for tile, held in sorted(manifest.tiles.items())
        if tile.margin is margin and held.rows
    ]


def _write_tiles(
    root: str, counted: PixelCounts, plan: _TilePlan, sky: Sky, manifest: Manifest, output: str, run: Runner
) -> None:
    settings, wanted = sky.settings, set(plan.wanted)
    pieces: dict[Tile, list[Piece]] = defaultdict(list)
    for found in run(scatter, _scatter_tasks(root, counted, plan, settings, output)):
        for piece in found:
            pieces[piece.tile].append(piece)
    for tile in wanted - pieces.keys():
        manifest.tiles[tile] = TileRecord(plan.digests[tile], 0, 0)
    tasks = [
        GatherTask(
            tile,
            storage.join(output, settings.folder(margin=tile.margin)),
            tuple(sorted(found, key=lambda piece: piece.uri)),
            sky.schema,
        )
        for tile, found in sorted(pieces.items())
    ]
    saved = time.monotonic()
    for done in run(gather, tasks):
        manifest.tiles[done.tile] = TileRecord(plan.digests[done.tile], done.rows, done.size)
        if time.monotonic() - saved > SAVE_SECONDS:
            manifest.write(output)
            saved = time.monotonic()
    manifest.write(output)


def _scatter_tasks(
    root: str, counted: PixelCounts, plan: _TilePlan, settings: HatsSettings, output: str
) -> list[ScatterTask]:
    wanted = set(plan.wanted)
    tiles = list(zip(plan.tiling.orders.tolist(), plan.tiling.pixels.tolist(), strict=True))
    mask = [[Tile(margin, *tile) in wanted for tile in tiles] for margin in (False, True)]
    groups: list[list[str]] = []
    room = 0
    for key, rows in counted.sources(plan.tiling, plan.wanted):
        if not groups or rows > room:
            groups.append([])
            room = SCATTER_ROWS
        groups[-1].append(key)
        room -= rows
    digits = 1 + int(math.log10(max(1, len(groups))))
    return [
        ScatterTask(
            PartSelection(root, tuple(group), settings.selection),
            plan.tiling,
            np.array(mask),
            storage.join(output, STAGING, f"{number:0{digits}}.arrows"),
        )
        for number, group in enumerate(groups)
    ]


def _write_metadata(output: str, sky: Sky, manifest: Manifest) -> None:
    tiles: list[WrittenTile] = []
    for margin in sky.settings.kinds:
        files = _files(manifest, margin=margin)
        write_catalog(output, sky, files, margin=margin)
        tiles += files
    write_collection(output, sky, tiles)
