"""Every object key and file name of a catalog, and nowhere else.

CATALOG/galaxies/_delta_log/...   the table of galaxies
CATALOG/galaxies/parts/<settings fingerprint>/<unit_id>-<unit fingerprint>-<origin>-<digest>.parquet
CATALOG/rejects/...               the same for rejects; a unit's two parts have the same key
CATALOG/{population,draws}/...    companions of a galaxies part: of its key, valid while it is active
CATALOG/runs/<run_id>/{run.json,report.html,plan/<number>.parquet}
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Self

from gax_batch.storage import join

GALAXIES_TABLE = "galaxies"
REJECTS_TABLE = "rejects"
POPULATION = "population"
DRAWS = "draws"
COMPANIONS = (POPULATION, DRAWS)
RUNS = "runs"
TOP_LEVEL = frozenset({GALAXIES_TABLE, REJECTS_TABLE, *COMPANIONS, RUNS})
DELTA_LOG = "_delta_log"

_PARTS = "parts"
_PART_KEY = re.compile(rf"{_PARTS}/([^/]+)/([^/-]+)-([^/-]+)-([^/-]+)-([^/-]+)\.parquet")

MANY_ORIGINS = "many"
"""The origin of a unit that is not all of its objects, or that another try may change."""

SEVERAL_ORIGINS = "several"
"""The origin of a unit that is all of several objects; the part's footer lists them."""


@dataclass(frozen=True, slots=True, order=True)
class PartName:
    """What a part's key says about it.

    Attributes:
        settings_fingerprint: Digest of everything besides the cutouts that decides what rows say.
        unit_id: The unit.
        fingerprint: Digest of the unit's members and their versions.
        origin: Digest of the one object, and its version, that the unit is all of (`origin_of`), or
            `SEVERAL_ORIGINS`: where its objects are listed again in these versions, none of its rows have
            to be looked at. Else `MANY_ORIGINS`.
        digest: Digest of the rows. A key never gets other bytes, so that two runs that work on the same
            unit at the same time cannot change what the other has committed.
    """

    settings_fingerprint: str
    unit_id: str
    fingerprint: str
    origin: str
    digest: str

    @property
    def key(self) -> str:
        """The object's key below its table's root."""
        name = f"{self.unit_id}-{self.fingerprint}-{self.origin}-{self.digest}.parquet"
        return f"{_PARTS}/{self.settings_fingerprint}/{name}"

    @classmethod
    def parse(cls, key: str) -> Self | None:
        """The inverse of `key`; None for a key that is no part's. Any prefix before it is passed over."""
        match = _PART_KEY.fullmatch(key[max(key.rfind(f"/{_PARTS}/") + 1, 0) :])
        return None if match is None else cls(*match.groups())


def origin_of(object_uri: str, version: str) -> str:
    """Names one version of one object."""
    return hashlib.sha256(f"{object_uri}\x1f{version}".encode()).hexdigest()[:16]


def table(catalog: str, name: str) -> str:
    """The root of one of the catalog's two Delta tables."""
    return join(catalog, name)


def companion(catalog: str, kind: str, key: str) -> str:
    """What is stored beside a galaxies part, given the part's key; `kind` is one of `COMPANIONS`."""
    return join(catalog, kind, key)


def parts_folder(catalog: str, settings_fingerprint: str) -> str:
    """Where the galaxy parts of one combination of bundle and settings are."""
    return join(catalog, GALAXIES_TABLE, _PARTS, settings_fingerprint)


def run_record(catalog: str, run_id: str) -> str:
    """What ran, on what, how long and how many."""
    return join(catalog, RUNS, run_id, "run.json")


def run_report(catalog: str, run_id: str) -> str:
    """The page about the snapshot that a run made."""
    return join(catalog, RUNS, run_id, "report.html")


def plan_folder(catalog: str, run_id: str) -> str:
    """Where the members of a run's units are."""
    return join(catalog, RUNS, run_id, "plan")


def plan_file(catalog: str, run_id: str, number: int) -> str:
    """The members of some of the units that a run works on."""
    return join(plan_folder(catalog, run_id), f"{number:06}.parquet")
