"""The manifest of a published HATS catalog, with which the next publication writes only changed files.

OUTPUT/collection.properties                       the file that HATS readers open
OUTPUT/README.md                                   a description of the collection, for people
OUTPUT/galaxies/{dataset/...,hats.properties,...}  the catalog
OUTPUT/galaxies_<margin>arcs/...                   its margin cache
OUTPUT/gax/manifest.json                           the manifest; unlisted tiles may be incomplete
OUTPUT/gax/counts-<digest>.parquet                 galaxies by part and pixel, so that parts are counted once
OUTPUT/gax/staging/...                             rows that are being sorted from parts into tiles
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from gax_batch import storage
from gax_batch.catalog.schema import ADDED_COLUMNS
from gax_batch.errors import UsageError
from gax_batch.export.selection import Selection
from gax_batch.export.tasks import Tile
from gax_batch.storage.listing import list_objects

FORMAT = 1
CATALOG = "galaxies"
COLLECTION = "collection.properties"
README = "README.md"
_OURS = re.compile(
    rf"{CATALOG}(?:_[0-9.e+-]+arcs)?/(?:dataset/(?:Norder=\d+/Dir=\d+/(?:Npix=\d+\.parquet|\.[0-9a-f]+\.tmp)"
    r"|_metadata|_common_metadata)|(?:hats\.)?properties|partition_info\.csv|(?:point_map|skymap)\.fits)"
    r"|gax/(?:staging/\d+\.arrows|counts-[0-9a-f]+\.parquet)"
)
_MANIFEST = "gax/manifest.json"
STAGING = "gax/staging"


@dataclass(frozen=True, slots=True)
class HatsSettings:
    """Settings of a HATS catalog: columns and galaxies, galaxies per tile, and margins in arcsec."""

    selection: Selection
    pixel_threshold: int
    margin_arcsec: float

    @property
    def kinds(self) -> tuple[bool, ...]:
        """Whether each of the HATS catalogs to write is a margin cache."""
        return (True, False) if self.margin_arcsec else (False,)

    def folder(self, *, margin: bool) -> str:
        """Return the folder of the HATS catalog, relative to the output."""
        return f"{CATALOG}_{self.margin_arcsec:g}arcs" if margin else CATALOG

    def key(self, tile: Tile) -> str:
        """Return the key of a tile's file, relative to the output."""
        return f"{self.folder(margin=tile.margin)}/{tile.key}"

    @property
    def counts_key(self) -> str:
        """Key of the counts' file, relative to the output. It depends on the selected galaxies."""
        return f"gax/counts-{hashlib.sha256(repr(self.selection.where).encode()).hexdigest()[:16]}.parquet"

    def as_json(self) -> dict[str, Any]:
        """Return the selection for `Manifest.settings`."""
        chosen = self.selection
        names = {"names": chosen.names} if chosen.names else {}
        return {"columns": chosen.columns, "where": chosen.where, **names}

    def digest(self, tile: Tile, fingerprint: str) -> str:
        """Return a digest of what determines a tile's file: the rows of its parts, and the selection."""
        text = f"{FORMAT} {self.selection} {self.margin_arcsec if tile.margin else 0} {fingerprint}"
        text += f" {self.selection.names}" if self.selection.names else ""
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class TileRecord:
    """The record of the file of a tile.

    Attributes:
        digest: Digest of the sources of the file.
        rows: Number of rows, 0 for an empty margin.
        size: Bytes of the file, 0 for an empty margin.
    """

    digest: str
    rows: int
    size: int


@dataclass(slots=True)
class Manifest:
    """The contents of a published HATS catalog.

    Attributes:
        catalog: URI of the published catalog.
        snapshot: Number of the catalog's snapshot; None until the publication is complete.
        tiles: Complete files, by tile.
        settings: Settings of the publication, for a person to read.
    """

    catalog: str
    snapshot: int | None = None
    tiles: dict[Tile, TileRecord] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, output: str, catalog: str, there: Iterable[str]) -> Self:
        """Read the manifest of an output, or create one for an empty output.

        Args:
            output: URI of the output.
            catalog: URI of the catalog to publish.
            there: Keys of the objects in the output.

        Raises:
            UsageError: The output contains other files.
        """
        there = set(there)
        if _MANIFEST not in there:
            if there:
                raise UsageError(
                    f"{output} already contains other files ({min(there)}); choose an empty or a new folder"
                )
            return cls(catalog)
        try:
            stored = json.loads(storage.read_bytes(storage.join(output, _MANIFEST)))
            version, owner = stored["format"], stored["catalog"]
            tiles = {Tile(*entry[:3]): TileRecord(*entry[3:]) for entry in stored["tiles"]}
        except (ValueError, KeyError, TypeError):
            raise UsageError(
                f"{output}/{_MANIFEST} is not a manifest of gax publish; choose a new folder"
            ) from None
        if version != FORMAT:
            raise UsageError(f"{output} was published by another version of gax-batch; choose a new folder")
        if owner != catalog:
            raise UsageError(
                f"{output} contains the publication of another catalog, {owner}; choose a new folder"
            )
        return cls(catalog, stored["snapshot"], tiles, stored["settings"])

    def require_same(self, selection: Selection, output: str) -> None:
        """Refuse to replace a publication of another selection.

        Raises:
            UsageError: The output has other columns, or galaxies selected by another expression.
        """
        there = self.settings
        if not there:
            return
        # A newer release may add columns to `all`, which is an update.
        requested, held = (
            [name for name in names if name not in ADDED_COLUMNS]
            for names in (selection.columns, there["columns"])
        )
        differs = "columns" if requested != held else "--where" if selection.where != there["where"] else None
        differs = "--names" if selection.names != there.get("names") else differs
        if differs:
            raise UsageError(
                f"{output} contains a publication with other {differs} "
                f"({len(held)} columns, where {there['where'] or 'all galaxies'}); "
                "choose another output, or pass --replace"
            )

    def write(self, output: str) -> None:
        """Store the manifest and replace the previous one."""
        tiles = [
            [*asdict(tile).values(), *asdict(held).values()] for tile, held in sorted(self.tiles.items())
        ]
        content = {
            "format": FORMAT,
            "catalog": self.catalog,
            "snapshot": self.snapshot,
            "settings": self.settings,
            "tiles": tiles,
        }
        storage.write_bytes(storage.join(output, _MANIFEST), json.dumps(content).encode() + b"\n")


def list_output(output: str) -> dict[str, int]:
    """Return the size of every object of an output by its key."""
    return {info.uri.removeprefix(f"{output}/"): info.size for info in list_objects(output, missing_ok=True)}


def left_over(there: Iterable[str], kept: Iterable[str]) -> Iterator[str]:
    """Yield the keys of objects that are left from an earlier or interrupted publication."""
    kept = {*kept, _MANIFEST}
    return (key for key in there if _OURS.fullmatch(key) and key not in kept)
