"""The object keys and file names of a catalog. No other module builds them.

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
"""The origin of a unit that is not all of its objects, or that another run may change."""

SEVERAL_ORIGINS = "several"
"""The origin of a unit that is all of several objects; the part's footer lists them."""


@dataclass(frozen=True, slots=True, order=True)
class PartName:
    """The facts about a part that its key contains.

    Attributes:
        settings_fingerprint: Digest of everything besides the cutouts that determines the rows.
        unit_id: The unit.
        fingerprint: Digest of the members of the unit and their versions.
        origin: If the unit is all of one object, the digest of the object and its version (`origin_of`). If
            it is all of several objects, `SEVERAL_ORIGINS`. A plan that lists these objects in these versions
            need not read the rows of the unit. Otherwise `MANY_ORIGINS`.
        digest: Digest of the rows. The bytes under a key never change, so that two runs that work on the same
            unit at the same time cannot change what the other has committed.
        rejects: Number of rejected cutouts of the unit; None for a part of catalog format 2.
    """

    settings_fingerprint: str
    unit_id: str
    fingerprint: str
    origin: str
    digest: str
    rejects: int | None = field(default=None, compare=False)

    @property
    def key(self) -> str:
        """The key of the object below the root of its table."""
        name = f"{self.unit_id}-{self.fingerprint}-{self.origin}-{self.digest}"
        name += "" if self.rejects is None else f"-{self.rejects}"
        return f"{_PARTS}/{self.settings_fingerprint}/{name}.parquet"

    @classmethod
    def parse(cls, key: str) -> Self | None:
        """Parse the key of a part, with any prefix. Return None if it is not the key of a part."""
        match = _PART_KEY.fullmatch(key[max(key.rfind(f"/{_PARTS}/") + 1, 0) :])
        if match is None:
            return None
        settings, unit_id, fingerprint, origin, digest, rejects = match.groups()
        return cls(settings, unit_id, fingerprint, origin, digest, None if rejects is None else int(rejects))


def origin_of(object_uri: str, version: str) -> str:
    """Return a digest of an object and its version."""
    return hashlib.sha256(f"{object_uri}\x1f{version}".encode()).hexdigest()[:16]


def table(catalog: str, name: str) -> str:
    """Return the root of the Delta table of a catalog, or of its companions of a kind."""
    return join(catalog, name)


def companion(catalog: str, kind: str, key: str) -> str:
    """Return the URI of the companion of a galaxies part with this key; `kind` is one of `COMPANIONS`."""
    return join(catalog, kind, key)


def parts_folder(catalog: str, settings_fingerprint: str) -> str:
    """Return the folder of the galaxies parts of one combination of bundle and settings."""
    return join(catalog, GALAXIES_TABLE, _PARTS, settings_fingerprint)


def runs_folder(catalog: str) -> str:
    """Return the folder of the records of all runs."""
    return join(catalog, RUNS)


def parts_root(catalog: str, kind: str) -> str:
    """Return the folder of all parts, or of all companions of a kind."""
    return join(catalog, kind, _PARTS)


def run_record(catalog: str, run_id: str) -> str:
    """Return the URI of the record of a run."""
    return join(catalog, RUNS, run_id, "run.json")


def run_report(catalog: str, run_id: str) -> str:
    """Return the URI of the report about the snapshot that a run made."""
    return join(catalog, RUNS, run_id, "report.html")


def plan_folder(catalog: str, run_id: str) -> str:
    """Return the folder of the members of the units of a run."""
    return join(catalog, RUNS, run_id, "plan")


def plan_file(catalog: str, run_id: str, number: int) -> str:
    """Return the URI of the file with the members of some units of a run."""
    return join(plan_folder(catalog, run_id), f"{number:06}.parquet")


def frames_folder(catalog: str) -> str:
    """Return the default folder of the index of frames."""
    return join(catalog, FRAMES)
