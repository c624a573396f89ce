"""Listings of surveys, and a catalog in memory, for the tests of planning."""

import atexit
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from gax_batch.catalog.snapshots import KNOWN_SCHEMA
from gax_batch.planning.plan import Plan, make_plan, read_unit_members
from gax_batch.sources import Source, read_positions
from gax_batch.sources.base import MEMBER_SCHEMA, check_ids

BAD_VERSION = "corrupt"
GONE_VERSION = "gone"

_FOLDERS = tempfile.TemporaryDirectory(prefix="gax-tests-")
atexit.register(_FOLDERS.cleanup)


def member(name: str, **values: object) -> dict[str, object]:
    """A loose image's row of a listing."""
    uri = f"s3://survey/{name}.jpg"
    return {
        "galaxy_id": name,
        "source_uri": uri,
        "source_version": "1",
        "object_uri": uri,
        "size": 10,
    } | values


def shard_row(shard: str, row: int, **values: object) -> dict[str, object]:
    uri = f"s3://survey/{shard}.parquet"
    place = {"source_uri": f"{uri}#row={row}", "object_uri": uri, "row": row, "size": None}
    return member(f"{shard}-{row}") | place | values


def listing(rows: Iterable[Mapping[str, object]]) -> pa.Table:
    return check_ids(pa.Table.from_pylist([dict(row) for row in rows], schema=MEMBER_SCHEMA))


@dataclass
class FakeCatalog:
    """What a run would leave in a catalog, in plain Python."""

    settings: str = "s"
    parts: dict[str, tuple[str, str, list[dict[str, object]]]] = field(default_factory=dict)

    def plan(self, table: pa.Table, unit_size: int = 4, **options: object) -> Plan:
        rows = [
            {
                "source_uri": m["source_uri"],
                "source_version": m["source_version"],
                "galaxy_id": m["galaxy_id"],
                "ra": None if m["reason"] else m["ra"],
                "dec": None if m["reason"] else m["dec"],
                "unit_id": unit,
                "rejected": m["reason"] is not None,
                "plan_reason": m["reason"] if m["stage"] == "plan" else None,
                "attempts": (m["attempts"] or 0) + 1 if m["reason"] else None,
                "retry": m["reason"] == "missing",
            }
            for unit, (_, _, members) in self.parts.items()
            for m in members
        ]
        known = pa.Table.from_pylist(rows, schema=KNOWN_SCHEMA)
        units = {unit: (settings, print_) for unit, (settings, print_, _) in self.parts.items()}
        options = {"settings_fingerprint": self.settings, "unit_size": unit_size} | options
        return make_plan([table], [known], units, folder=new_folder(), **options)

    def apply(self, plan: Plan) -> None:
        for unit, members in planned(plan).items():
            (print_,) = [u.fingerprint for u in plan.units if u.unit_id == unit]
            rows = [dict(m) for m in members]
            for row in rows:
                if row["reason"] is None and row["source_version"] in (BAD_VERSION, GONE_VERSION):
                    reason = "corrupt" if row["source_version"] == BAD_VERSION else "missing"
                    row |= {"stage": "decode", "reason": reason}
            self.parts[unit] = (self.settings, print_, rows)
        for unit in plan.removed:
            del self.parts[unit]

    @property
    def members(self) -> list[dict[str, object]]:
        return [m for _, _, members in self.parts.values() for m in members]


def planned(plan: Plan) -> dict[str, list[dict[str, object]]]:
    """Members by unit as workers read them."""
    places = plan.write("memory://plans", "run")
    assert len({u.unit_id for u in plan.units}) == len(plan.units)
    return {
        unit.unit_id: read_unit_members(*place).to_pylist()
        for unit, place in zip(plan.units, places, strict=True)
    }


def listed(source: Source, positions: str | None = None) -> pa.Table:
    """A survey's members in order, as a first run plans them."""
    plan = make_plan(
        source.list_members(),
        [],
        {},
        settings_fingerprint="s",
        unit_size=1_000_000,
        folder=new_folder(),
        positions=() if positions is None else read_positions(positions),
    )
    places = plan.write("memory://plans", "run")
    return pa.concat_tables(
        [MEMBER_SCHEMA.empty_table(), *(read_unit_members(*place) for place in places)]
    ).sort_by("source_uri")


def new_folder() -> Path:
    """An empty folder that lasts until the tests end."""
    return Path(tempfile.mkdtemp(dir=_FOLDERS.name))


def rows_now(**changes: dict[str, object]) -> pa.Table:
    return listing(member(n, ra=1.0, dec=2.0) | changes.get(n, {}) for n in "abcdefgh")


def cataloged_survey() -> FakeCatalog:
    """A catalog of the galaxies a to h in units of the size that `FakeCatalog` plans."""
    catalog = FakeCatalog()
    catalog.apply(catalog.plan(rows_now()))
    return catalog
