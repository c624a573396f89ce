"""Fingerprint the settings of a run, and find the units of a catalog that other settings made.

A settings fingerprint has two halves, `numbers.others`. The first half is a digest of the settings that
change the numbers of a row. A unit whose first half differs is processed again. The second half is a digest
of limits and companions. It keeps parts of different runs apart; a difference in it alone repeats no unit.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from gax_batch.catalog.layout import PartName
from gax_batch.catalog.snapshots import Catalog, read_run_record
from gax_batch.errors import UsageError
from gax_batch.models.bundle import Bundle
from gax_batch.rejects import Reason
from gax_batch.runner.settings import RunSettings

# Increased whenever the code changes the numbers of a row, so that existing catalogs are processed again.
RESULTS_VERSION = 7

_LIMITED: Mapping[str, Reason] = {
    "max_image_bytes": Reason.TOO_MANY_BYTES,
    "max_image_header_bytes": Reason.TOO_MANY_BYTES,
    "max_image_pixels": Reason.TOO_MANY_PIXELS,
    "max_image_expansion": Reason.DECOMPRESSION_BOMB,
    "max_image_memory_mib": Reason.DECOMPRESSION_BOMB,
}
_COMPANIONS = ("population_order", "population_bins", "keep_draws")


def settings_fingerprint(settings: RunSettings, bundle: Bundle) -> str:
    """Return the fingerprint of the settings, `numbers.others`, as the module describes."""
    others = {name: getattr(settings, name) for name in (*_LIMITED, *_COMPANIONS)}
    return f"{_digest(_numbers(settings, bundle.bundle_id))}.{_digest(others)}"


def numbers_digest(fingerprint: str) -> str:
    """Return the digest of the settings that determine the numbers of a fingerprint's rows."""
    return fingerprint.partition(".")[0]


@dataclass(frozen=True, slots=True)
class UnitOrigin:
    """Settings and bundle with which units were made, from the record of their run.

    Attributes:
        settings: Settings of the run.
        bundle_id: Identifier of the model bundle.
    """

    settings: RunSettings
    bundle_id: str


class Provenance:
    """Reads from run records which settings made the units of a catalog.

    One record is read for each fingerprint that differs from the one of the run.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._known: dict[str, UnitOrigin | None] = {}

    def same_numbers(self, fingerprint: str) -> set[str]:
        """Return the fingerprints in the catalog whose rows have the same numbers."""
        mine = numbers_digest(fingerprint)
        return {other for other in self._fingerprints() if numbers_digest(other) == mine}

    def changes(self, fingerprint: str, settings: RunSettings, bundle: Bundle) -> list[str]:
        """Return a line for each group of units to process again: number of cutouts and changed settings."""
        cutouts: Counter[str] = Counter()
        same = self.same_numbers(fingerprint)
        for name, planned in self._catalog.planned().items():
            if name.settings_fingerprint not in same:
                cutouts[name.settings_fingerprint] += planned
        return [
            f"{count:,} cutouts of {self._catalog.uri} are processed again: "
            f"{self._difference(other, settings, bundle)}"
            for other, count in cutouts.most_common()
        ]

    def limited(self, fingerprint: str, settings: RunSettings) -> dict[PartName, set[str]]:
        """Return the URIs of the rejects whose limit these settings raise, by the part of their unit.

        Raises:
            UsageError: A part is missing or unreadable.
            TransientError: The store kept failing.
        """
        raised = {other: self._raised(other, settings) for other in self._other_settings(fingerprint)}
        names = [name for name in self._catalog.reject_parts() if raised.get(name.settings_fingerprint)]
        found: dict[PartName, set[str]] = {}
        for name, rows in zip(names, self._catalog.reject_batches(names), strict=True):
            reasons = raised[name.settings_fingerprint]
            columns = rows["source_uri"].to_pylist(), rows["reason"].to_pylist()
            uris = {uri for uri, reason in zip(*columns, strict=True) if reason in reasons}
            if uris:
                found[name] = uris
        return found

    def incomplete(self, fingerprint: str, settings: RunSettings) -> list[PartName]:
        """Return the parts that lack sums or draws that these settings request."""
        lacking = {other for other in self._other_settings(fingerprint) if self._lacks(other, settings)}
        return [name for name in self._catalog.parts() if name.settings_fingerprint in lacking]

    def made(self, fingerprint: str) -> UnitOrigin | None:
        """Return the settings that made the units of a fingerprint; None if no record can be read."""
        if fingerprint not in self._known:
            self._known[fingerprint] = self._read(fingerprint)
        return self._known[fingerprint]

    def _read(self, fingerprint: str) -> UnitOrigin | None:
        planned = self._catalog.planned()
        names = [name for name in planned if name.settings_fingerprint == fingerprint]
        for name in sorted(names, key=lambda name: (-planned[name], name.key)):
            for rows in self._catalog.batches(["run_id"], [name]):
                if len(rows):
                    return _recorded(self._catalog.uri, rows["run_id"][0].as_py(), fingerprint)
        return None

    def _fingerprints(self) -> set[str]:
        return {fingerprint for fingerprint, _ in self._catalog.units().values()}

    def _other_settings(self, fingerprint: str) -> set[str]:
        return self.same_numbers(fingerprint) - {fingerprint}

    def _raised(self, fingerprint: str, settings: RunSettings) -> set[str]:
        made = self.made(fingerprint)
        return {
            reason.value
            for name, reason in _LIMITED.items()
            if made is None or getattr(settings, name) > getattr(made.settings, name)
        }

    def _lacks(self, fingerprint: str, settings: RunSettings) -> bool:
        made = self.made(fingerprint)
        if made is None:
            return True
        order, bins = settings.population_order, settings.population_bins
        return (
            order not in (None, made.settings.population_order)
            or not bins.items() <= made.settings.population_bins.items()
            or (settings.keep_draws and not made.settings.keep_draws)
        )

    def _difference(self, fingerprint: str, settings: RunSettings, bundle: Bundle) -> str:
        made = self.made(fingerprint)
        if made is None:
            return "the record of their run is missing, so that their settings are unknown"
        before = _numbers(made.settings, made.bundle_id)
        now = _numbers(settings, bundle.bundle_id)
        changed = [
            f"{name} {_shown(before.get(name))} -> {_shown(now.get(name))}"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]
        if numbers_digest(fingerprint) != _digest(before):
            changed.append("this release computes different numbers")
        return ", ".join(changed)


def _recorded(catalog: str, run_id: str, fingerprint: str) -> UnitOrigin | None:
    try:
        record = read_run_record(catalog, run_id)
        settings = RunSettings(**record["settings"])
    except (OSError, KeyError, TypeError, ValueError, ValidationError, UsageError):
        return None
    return (
        UnitOrigin(settings, record["bundle_id"]) if record["settings_fingerprint"] == fingerprint else None
    )


def _numbers(settings: RunSettings, bundle_id: str) -> dict[str, Any]:
    """Return the values that, besides the cutout, determine the numbers of a row."""
    decisive: dict[str, Any] = {
        "results_version": RESULTS_VERSION,
        "bundle_id": bundle_id,
        "models": sorted(settings.models),
        "draws": settings.draws,
        "precision": settings.precision,
        "crop": settings.crop,
        "preset": settings.preset,
    }
    if settings.target_error is None:
        decisive["passes"] = settings.passes
    else:
        decisive["target_error"] = settings.target_error
    if settings.frames:
        # Only frames use it: cutouts have their own size.
        decisive["default_radius"] = settings.default_radius
    return decisive


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _shown(value: object) -> str:
    return "none" if value is None else ",".join(value) if isinstance(value, list) else str(value)
