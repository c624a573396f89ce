"""A catalog of galaxies on the sky, some without a position, and its publication without Ray."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gax_batch import storage
from gax_batch.catalog import layout
from gax_batch.catalog.parts import Part, write_unit
from gax_batch.catalog.schema import GALAXIES, galaxies_table, rejects_table
from gax_batch.catalog.snapshots import Catalog
from gax_batch.export.hats_catalog import PublishedSky, publish_hats
from gax_batch.export.manifest import HatsSettings
from gax_batch.export.selection import Selection, choose_columns
from gax_batch.export.votable import TableProvenance
from gax_batch.sources.base import CUTOUT_SCHEMA

PER_PART = 200
FIELD = (150.0, 2.0)
SMOOTH = "t01_smooth_or_features_a01_smooth_prob"


def write_part(
    catalog: str,
    number: int,
    *,
    place: tuple[float, float] = (150.0, 2.0),
    seed: int = 0,
    bundle_id: str | None = None,
    **given: Any,
) -> Part:
    """A part of galaxies within two degrees of a place; every tenth has no position, numbers are random.

    Columns that are given have the given numbers.
    """
    rng = np.random.default_rng([number, seed])
    ids = [f"g{number}-{i}" for i in range(PER_PART)]
    nowhere = np.arange(PER_PART) % 10 == 0
    ra = pa.array(place[0] + rng.uniform(-2, 2, PER_PART), pa.float64(), mask=nowhere)
    dec = pa.array(place[1] + rng.uniform(-2, 2, PER_PART), pa.float64(), mask=nowhere)
    cutouts = pa.table(
        {
            "galaxy_id": ids,
            "ra": ra,
            "dec": dec,
            "source_uri": [f"s3://survey/{name}.jpg" for name in ids],
            "source_version": ["1"] * PER_PART,
            "flags": [0] * PER_PART,
            "stage": [None] * PER_PART,
            "reason": [None] * PER_PART,
            "detail": [None] * PER_PART,
            "attempts": [0] * PER_PART,
            "cutout": [None] * PER_PART,
        },
        schema=CUTOUT_SCHEMA,
    )
    values: dict[str, Any] = {
        name: rng.uniform(0, 1, PER_PART).astype(np.float32)
        for name, kind in zip(GALAXIES.names, GALAXIES.types, strict=True)
        if kind == pa.float32()
    }
    values["t01_smooth_or_features_a01_smooth_svr"][::7] = np.nan
    values |= {"gz2_class": rng.choice(["Er", "Sb2m", "Ei(o)"], PER_PART), **given}
    unit = hashlib.sha256(str(number).encode()).hexdigest()[:16]
    made_by = bundle_id or f"bundle-{number % 2}"
    rows = galaxies_table(cutouts, values, unit_id=unit, bundle_id=made_by, run_id="run")
    none = rejects_table(CUTOUT_SCHEMA.empty_table(), unit_id=unit, run_id="run")
    return write_unit(catalog, "s", rows, none, unit_id=unit, fingerprint=f"f{seed}", planned=PER_PART)


@dataclass
class Survey:
    """A catalog, and what was done to publish it."""

    folder: Path
    settings: HatsSettings = field(
        default_factory=lambda: HatsSettings(Selection(choose_columns([])), 150, 30.0)
    )
    calls: dict[str, int] = field(default_factory=dict)
    keys_override: list[str] | None = None

    @property
    def catalog(self) -> str:
        return storage.normalize_uri(str(self.folder / "catalog"))

    @property
    def output(self) -> Path:
        return self.folder / "published"

    @property
    def root(self) -> str:
        return layout.table(self.catalog, layout.GALAXIES_TABLE)

    @property
    def keys(self) -> list[str]:
        return self.keys_override or [part.key for part in Catalog(self.catalog).parts()]

    def catalog_part(self, number: int) -> Path:
        """The file of one of the catalog's parts."""
        return Path(self.root.removeprefix("file://")) / self.keys[number]

    def commit(self, *parts: Part) -> None:
        Catalog(self.catalog).commit(parts, run_id=f"run-{parts[0].key}", metadata={})

    def rows(self) -> pa.Table:
        return Catalog(self.catalog).galaxies()

    def provenance(self) -> TableProvenance:
        return TableProvenance(
            self.catalog, Catalog(self.catalog).version or 0, published="2026-01-02T03:04:05"
        )

    def publish(
        self, fail_after: tuple[str, int] | None = None, *, replace_it: bool = False, **changes: Any
    ) -> PublishedSky:
        """Publish without Ray; `fail_after` breaks off after so many calls of a step."""
        self.calls.clear()

        def run(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
            for item in items:
                done = self.calls.get(function.__name__, 0)
                if fail_after == (function.__name__, done):
                    raise KeyboardInterrupt
                self.calls[function.__name__] = done + 1
                yield function(item)

        return publish_hats(
            self.root,
            self.keys,
            replace(self.settings, **changes),
            self.provenance(),
            storage.normalize_uri(str(self.output)),
            run,
            replace_it=replace_it,
        )

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Modification time and bytes of every published file by its key."""
        found = (path for path in self.output.rglob("*") if path.is_file())
        return {
            path.relative_to(self.output).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
            for path in found
        }
