"""Every object key and file name of a catalog, and nowhere else.

CATALOG/galaxies/_delta_log/...   the table of galaxies
CATALOG/galaxies/parts/<settings fingerprint>/<unit_id>-<unit fingerprint>-<origin>-<digest>-<rejects>.parquet
CATALOG/{rejects,population,draws}/parts/...   companions of a part: of its key, valid while it is active
CATALOG/runs/<run_id>/{run.json,report.html,plan/<number>.parquet}
CATALOG/frames/...                the index of the frames that the survey's galaxies are cut out of
"""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Self

from gax_batch.storage import join

GALAXIES_TABLE = "galaxies"
REJECTS = "rejects"
POPULATION = "population"
DRAWS = "draws"
COMPANIONS = (REJECTS, POPULATION, DRAWS)
RUNS = "runs"
FRAMES = "frames"
TOP_LEVEL = frozenset({GALAXIES_TABLE, *COMPANIONS, RUNS, FRAMES})
DELTA_LOG = "_delta_log"

_PARTS = "parts"
_PART_KEY = re.compile(rf"{_PARTS}/([^/]+)/([^/-]+)-([^/-]+)-([^/-]+)-([^/-]+?)(?:-(\d+))?\.parquet")

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
        rejects: How many cutouts of the unit were rejected; None for a part of catalog format 2.
    """

    settings_fingerprint: str
    unit_id: str
    fingerprint: str
    origin: str
    digest: str
    rejects: int | None = field(default=None, compare=False)

    @property
    def key(self) -> str:
        """The object's key below its table's root."""
        name = f"{self.unit_id}-{self.fingerprint}-{self.origin}-{self.digest}"
        name += "" if self.rejects is None else f"-{self.rejects}"
        return f"{_PARTS}/{self.settings_fingerprint}/{name}.parquet"

    @classmethod
    def parse(cls, key: str) -> Self | None:
        """The inverse of `key`; None for a key that is no part's. Any prefix before it is passed over."""
        match = _PART_KEY.fullmatch(key[max(key.rfind(f"/{_PARTS}/") + 1, 0) :])
        if match is None:
            return None
        settings, unit_id, fingerprint, origin, digest, rejects = match.groups()
        return cls(settings, unit_id, fingerprint, origin, digest, None if rejects is None else int(rejects))


def origin_of(object_uri: str, version: str) -> str:
    """Names one version of one object."""
    return hashlib.sha256(f"{object_uri}\x1f{version}".encode()).hexdigest()[:16]


def table(catalog: str, name: str) -> str:
    """The root of the catalog's Delta table, or of its companions of a kind."""
    return join(catalog, name)


def companion(catalog: str, kind: str, key: str) -> str:
    """What is stored beside a galaxies part, given the part's key; `kind` is one of `COMPANIONS`."""
    return join(catalog, kind, key)


def parts_folder(catalog: str, settings_fingerprint: str) -> str:
    """Where the galaxy parts of one combination of bundle and settings are."""
    return join(catalog, GALAXIES_TABLE, _PARTS, settings_fingerprint)


def runs_folder(catalog: str) -> str:
    """Where the records of all runs are."""
    return join(catalog, RUNS)


def parts_root(catalog: str, kind: str) -> str:
    """Where all parts, or all companions of a kind, are."""
    return join(catalog, kind, _PARTS)


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


def frames_folder(catalog: str) -> str:
    """Where the index of frames is, unless the user names another folder."""
    return join(catalog, FRAMES)
