"""The members of a listing that changed since a snapshot, and the units that are redone for them.

Every table with a row per galaxy is in a `Scratch` database:

`seen`: the listing with its positions, and beside each member its entry in the catalog;
`gone`: members of the catalog that are no longer in the listing;
`duplicates`: listed members whose id belongs to another galaxy;
`redone`: the units that have to be redone, and why.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

import pyarrow as pa

from gax_batch.catalog.snapshots import KNOWN_SCHEMA
from gax_batch.errors import UsageError
from gax_batch.rejects import MAX_ATTEMPTS, MAX_DETAIL_CHARACTERS, Reason, Stage
from gax_batch.sources.base import MEMBER_SCHEMA, POSITION_SCHEMA
from gax_batch.system.disk_database import Scratch

NEW, CHANGED, MODEL_CHANGED, RETRIED, FORCED = "new", "changed", "model changed", "retried", "forced"

_UNIT_SCHEMA = pa.schema([("unit_id", pa.string()), ("stale", pa.bool_())])

# The order in which members are listed, cut into units, and preferred.
_ORDER = "object_uri, row NULLS FIRST"

# A NaN is not a position.
_NUMBER = "CREATE MACRO number(x) AS CASE WHEN isnan(x) THEN NULL ELSE x END"
_TWICE = "SELECT source_uri FROM listing GROUP BY source_uri HAVING count(*) > 1 LIMIT 1"
_POSITIONS = """
CREATE TABLE by_column AS SELECT id_column, galaxy_id, any_value(ra) AS ra, any_value(dec) AS dec,
    min(ra) <> max(ra) OR min(dec) <> max(dec)
    OR count(ra) NOT IN (0, count(*)) OR count(dec) NOT IN (0, count(*)) AS differ
FROM positions WHERE galaxy_id IS NOT NULL GROUP BY id_column, galaxy_id
"""
_COLUMNS = "SELECT DISTINCT id_column FROM positions ORDER BY id_column"
_MATCHES = """
SELECT id_column, count(*) AS galaxies FROM by_column SEMI JOIN listing USING (galaxy_id)
GROUP BY id_column ORDER BY galaxies DESC, id_column
"""
_AMBIGUOUS = """
SELECT other.id_column, other.galaxy_id
FROM (SELECT * FROM by_column SEMI JOIN listing USING (galaxy_id) WHERE id_column <> $column) AS other
    LEFT JOIN (SELECT * FROM by_column WHERE id_column = $column) AS chosen USING (galaxy_id)
WHERE chosen.galaxy_id IS NULL OR chosen.ra IS DISTINCT FROM other.ra OR chosen.dec IS DISTINCT FROM other.dec
LIMIT 1
"""
_TWO_POSITIONS = "SELECT galaxy_id FROM by_column WHERE id_column = $column AND differ LIMIT 1"
_PLACE = "CREATE TABLE placed AS SELECT galaxy_id, ra, dec FROM by_column WHERE id_column = $column"
# A galaxy keeps its position in the catalog until the table or the listing gives another one.
_KNOWN_PLACES = """
CREATE VIEW known_places AS SELECT galaxy_id, ra, dec FROM known WHERE NOT rejected AND ra IS NOT NULL
"""
_SEE = """
CREATE TABLE seen AS
WITH located AS (
    SELECT listing.* EXCLUDE (ra, dec), placed.galaxy_id IS NOT NULL AS in_table,
        number(CASE WHEN placed.galaxy_id IS NULL THEN listing.ra ELSE placed.ra END) AS ra,
        number(CASE WHEN placed.galaxy_id IS NULL THEN listing.dec ELSE placed.dec END) AS dec
    FROM listing LEFT JOIN placed USING (galaxy_id)
), kept AS (
    SELECT located.* REPLACE (coalesce(located.ra, place.ra) AS ra, coalesce(located.dec, place.dec) AS dec)
    FROM located LEFT JOIN known_places AS place
        ON place.galaxy_id = located.galaxy_id
        AND NOT in_table AND located.ra IS NULL AND located.dec IS NULL
), checked AS (
    SELECT *, reason IS NULL AND (ra IS NOT NULL OR dec IS NOT NULL)
        AND NOT coalesce(ra BETWEEN 0 AND 360 AND dec BETWEEN -90 AND 90, false) AS misplaced
    FROM kept
), marked AS (
    SELECT * EXCLUDE (misplaced) REPLACE (
        CASE WHEN misplaced THEN $stage ELSE stage END AS stage,
        CASE WHEN misplaced THEN $reason ELSE reason END AS reason,
        CASE WHEN NOT misplaced THEN detail
            ELSE concat('ra is ', coalesce(ra::VARCHAR, 'None'), ', dec is ', coalesce(dec::VARCHAR, 'None'))
            END AS detail
    ) FROM checked
)
SELECT marked.* REPLACE (
        CASE WHEN known.source_version = marked.source_version THEN known.attempts ELSE 0 END AS attempts
    ), known.source_uri IS NOT NULL AS is_known,
    known.unit_id, known.rejected, known.plan_reason, known.galaxy_id AS known_id,
    known.source_version IS DISTINCT FROM marked.source_version
        OR known.galaxy_id IS DISTINCT FROM marked.galaxy_id
        -- Rejects have no position in the catalog; theirs changes nothing.
        OR NOT known.rejected
            AND (known.ra IS DISTINCT FROM marked.ra OR known.dec IS DISTINCT FROM marked.dec) AS differs,
    coalesce(known.retry AND known.attempts < $max_attempts, false) AS retry
FROM marked LEFT JOIN known USING (source_uri)
"""
_COUNT_PLACED = """
SELECT count(*) AS cutouts, count(*) FILTER (in_table) AS in_table,
    count(*) FILTER (NOT in_table AND (ra IS NOT NULL OR dec IS NOT NULL)) AS elsewhere,
    min(galaxy_id) AS example
FROM seen
"""
_MISS = """
CREATE TABLE gone AS
SELECT source_uri, galaxy_id, rejected, unit_id,
    unit_id IN (SELECT unit_id FROM seen WHERE is_known) AS listed
FROM known ANTI JOIN seen USING (source_uri)
"""
# A rejected member does not claim its id.
_CLAIM = "CREATE VIEW claims AS SELECT * FROM seen WHERE reason IS NULL AND galaxy_id IS NOT NULL"
# Galaxies of units that vanished as a whole are kept: nothing is left to redo without them.
_CLAIMED = """
SELECT DISTINCT galaxy_id FROM claims WHERE galaxy_id IS DISTINCT FROM known_id ORDER BY galaxy_id
"""
_KEEP = """
CREATE VIEW kept AS SELECT * FROM gone WHERE NOT rejected AND NOT listed AND NOT getvariable('prune')
"""
_MOVED = f"""
SELECT count(DISTINCT kept.source_uri) OVER () AS count, claims.source_uri AS now, kept.source_uri AS was
FROM kept JOIN claims USING (galaxy_id) WHERE claims.galaxy_id IS DISTINCT FROM claims.known_id
ORDER BY kept.source_uri, {_ORDER} LIMIT 1
"""  # noqa: S608 (constants of this module)
_SETTLE = f"""
CREATE TABLE duplicates AS
WITH claimants AS (
    SELECT galaxy_id, source_uri, true AS listed, object_uri, row, CASE
        WHEN known_id IS DISTINCT FROM galaxy_id OR plan_reason IS NOT NULL THEN 2
        WHEN rejected THEN 1 ELSE 0 END AS priority
    FROM claims
    UNION ALL SELECT galaxy_id, source_uri, false, source_uri, NULL, -1 FROM kept
), contested AS (SELECT galaxy_id FROM claimants GROUP BY galaxy_id HAVING count(*) > 1)
SELECT source_uri, listed, first_value(source_uri) OVER preferred AS owner
FROM claimants SEMI JOIN contested USING (galaxy_id)
WINDOW preferred AS (PARTITION BY galaxy_id ORDER BY priority, {_ORDER})
QUALIFY row_number() OVER preferred > 1 AND listed
"""  # noqa: S608 (constants of this module)
_SETTLED = """
CREATE VIEW settled AS
SELECT seen.*, duplicates.owner,
    is_known AND (differs OR plan_reason IS DISTINCT FROM
        CASE WHEN duplicates.owner IS NULL THEN reason ELSE getvariable('duplicate') END) AS changed
FROM seen LEFT JOIN duplicates USING (source_uri)
"""
_REDO = """
CREATE TABLE redone AS
WITH touched AS (
    SELECT unit_id, bool_or(changed) AS changed, bool_or(retry) AS retry FROM (
        SELECT unit_id, changed, retry FROM settled WHERE is_known
        -- A vanished member gives its id to a listed one that claims it, by leaving.
        UNION ALL
        SELECT unit_id, true, false FROM gone SEMI JOIN claims USING (galaxy_id)
        WHERE listed AND NOT rejected
        UNION ALL
        SELECT unit_id, true, false FROM gone WHERE listed AND getvariable('prune')
    ) GROUP BY unit_id
)
SELECT unit_id,
    CASE WHEN stale THEN $stale WHEN changed THEN $changed WHEN retry THEN $retried ELSE $forced END AS why
FROM touched JOIN units USING (unit_id) WHERE stale OR changed OR retry OR $full
"""
_REMOVE = "SELECT DISTINCT unit_id FROM gone WHERE NOT listed AND getvariable('prune') ORDER BY unit_id"
_COUNT = """
SELECT count(*) AS listed,
    count(*) FILTER (NOT is_known) AS new,
    count(*) FILTER (changed) AS changed,
    count(*) FILTER (is_known AND NOT changed AND stale) AS model_changed,
    count(*) FILTER (is_known AND NOT changed AND NOT stale AND retry) AS retried,
    count(*) FILTER (is_known AND NOT changed AND NOT stale AND NOT retry AND $full) AS forced,
    (SELECT count(*) FROM gone) AS vanished
FROM settled LEFT JOIN units USING (unit_id)
"""
_MEMBERS = f"""
WITH shards AS (
    SELECT object_uri, count(*) AS object_rows FROM seen WHERE row IS NOT NULL GROUP BY object_uri
)
SELECT settled.* REPLACE (
        CASE WHEN owner IS NULL THEN stage ELSE $stage END AS stage,
        CASE WHEN owner IS NULL THEN reason ELSE $reason END AS reason,
        CASE WHEN owner IS NULL THEN detail
            ELSE left('galaxy_id is already taken by ' || owner, $characters) END AS detail
    ), why, object_rows
FROM settled LEFT JOIN redone USING (unit_id) LEFT JOIN shards USING (object_uri)
WHERE NOT is_known OR why IS NOT NULL
ORDER BY unit_id NULLS LAST, {_ORDER}
"""  # noqa: S608 (constants of this module)


@dataclass(frozen=True, slots=True)
class PlanCounts:
    """Members of the listing by the change that was found, and vanished members."""

    new: int
    changed: int
    model_changed: int
    retried: int
    forced: int
    unchanged: int
    vanished: int

    @property
    def listed(self) -> int:
        """Members of the listing."""
        return sum(self.as_dict().values()) - self.vanished

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)

    def __str__(self) -> str:
        seldom = ("retried", "forced")
        shown = {k.replace("_", " "): v for k, v in self.as_dict().items() if v or k not in seldom}
        return ", ".join(f"{name} {count:,}" for name, count in shown.items())


@dataclass(frozen=True, slots=True)
class PositionMatch:
    """The match between a table of positions and a listing.

    Attributes:
        columns: Id columns of the table.
        column: The id column that has ids of listed galaxies; None if none has.
        cutouts: Number of cutouts of the listing.
        in_table: Number of them whose galaxy is in the table.
        elsewhere: Number of the others that have a position in the listing or in the catalog.
        example: Id of a galaxy of the listing; None if no galaxy has an id.
    """

    columns: tuple[str, ...]
    column: str | None
    cutouts: int
    in_table: int
    elsewhere: int
    example: str | None


class Difference:
    """The members that changed, and the known units that are redone."""

    def __init__(
        self,
        scratch: Scratch,
        listing: Iterable[pa.Table],
        known: Iterable[pa.Table],
        stale: Mapping[str, bool],
        *,
        positions: Iterable[pa.Table] = (),
        full: bool = False,
        prune: bool = False,
        max_attempts: int = MAX_ATTEMPTS,
    ) -> None:
        """Compare a listing with a catalog.

        Args:
            scratch: An empty database. It must outlive this object.
            listing: Batches of `MEMBER_SCHEMA`, in any order. `source_uri` is unique in all of them.
            known: Batches of `KNOWN_SCHEMA`. `source_uri` is unique in all of them.
            stale: For each known unit, whether it was made by another bundle or with other settings.
            positions: Batches of `POSITION_SCHEMA`. They take precedence over the listing's own.
            full: Redo every unit that has a member in the listing.
            prune: Remove vanished members: redo their units, and remove units of which nothing is left.
            max_attempts: Maximum number of runs that retry a cutout after a storage error.

        Raises:
            UsageError: A vanished unit's galaxies are now listed under other URIs, a galaxy has two positions
                or is listed twice, or two id columns of the table match galaxies at different positions.
        """
        self._scratch = scratch
        self._full = full
        scratch.load("positions", POSITION_SCHEMA, positions)
        scratch.run(_NUMBER)
        scratch.load("listing", MEMBER_SCHEMA, listing)
        self._refuse_duplicates()
        column = self._choose_id_column()
        scratch.load("known", KNOWN_SCHEMA, known)
        scratch.run(_KNOWN_PLACES)
        units = pa.table([list(stale.keys()), list(stale.values())], schema=_UNIT_SCHEMA)
        scratch.load("units", _UNIT_SCHEMA, [units])
        scratch.run("SET VARIABLE prune = $prune", prune=prune)
        scratch.run(_SEE, stage=Stage.PLAN.value, reason=Reason.BAD_POSITION.value, max_attempts=max_attempts)
        columns = scratch.table(_COLUMNS)["id_column"].to_pylist()
        self.matched = PositionMatch(tuple(columns), column, **dict(scratch.one(_COUNT_PLACED) or {}))
        """Return how the positions match the listing."""
        for table in ("listing", "positions", "by_column", "placed"):
            scratch.run(f"DROP TABLE {table}")
        for statement in (_MISS, "DROP VIEW known_places", "DROP TABLE known", _CLAIM, _KEEP):
            scratch.run(statement)
        self._refuse_moved()
        scratch.run(_SETTLE)
        scratch.run("SET VARIABLE duplicate = $reason", reason=Reason.DUPLICATE_ID.value)
        scratch.run(_SETTLED)
        scratch.run(_REDO, stale=MODEL_CHANGED, changed=CHANGED, retried=RETRIED, forced=FORCED, full=full)

    def counts(self, passed_over: int = 0) -> PlanCounts:
        """Return the counts: every member of the listing once, and the vanished members.

        Args:
            passed_over: Number of unchanged members that were not listed one by one.
        """
        found = dict(self._scratch.one(_COUNT, full=self._full) or {})
        listed = found.pop("listed")
        done = sum(found[name] for name in ("new", "changed", "model_changed", "retried", "forced"))
        return PlanCounts(unchanged=listed - done + passed_over, **found)

    def claimed_ids(self) -> Iterator[str]:
        """Yield the ids of galaxies that the catalog does not have under the same URI, sorted."""
        for batch in self._scratch.stream(_CLAIMED):
            yield from batch["galaxy_id"].to_pylist()

    def removed(self) -> list[str]:
        """Return the units without a listed member that a pruning run removes."""
        return [name for batch in self._scratch.stream(_REMOVE) for name in batch["unit_id"].to_pylist()]

    def members(self) -> Iterator[pa.Table]:
        """Yield the members to process: units that are redone, by name, then new members, in order.

        Yields:
            Batches with the columns of `MEMBER_SCHEMA`, with `unit_id` and `why`, both null for new
            members, and with `object_rows`, the listed rows of a shard.
        """
        return self._scratch.stream(
            _MEMBERS,
            stage=Stage.PLAN.value,
            reason=Reason.DUPLICATE_ID.value,
            characters=MAX_DETAIL_CHARACTERS,
        )

    def _refuse_duplicates(self) -> None:
        found = self._scratch.one(_TWICE)
        if found is not None:
            raise UsageError(f"{found['source_uri']} is listed twice; keep one row per galaxy")

    def _choose_id_column(self) -> str | None:
        """Create `placed` from the id column that matches the most galaxies. Return the column, or None."""
        self._scratch.run(_POSITIONS)
        matches = self._scratch.table(_MATCHES).to_pylist()
        column = matches[0]["id_column"] if matches else None
        if len(matches) > 1 and (found := self._scratch.one(_AMBIGUOUS, column=column)) is not None:
            counts = " and ".join(f"{match['id_column']} ({match['galaxies']:,})" for match in matches)
            raise UsageError(
                f"several id columns of the position table have galaxies of the input: {counts}, and they "
                f"disagree on galaxy {found['galaxy_id']}; remove or rename all but the right one"
            )
        found = self._scratch.one(_TWO_POSITIONS, column=column)
        if found is not None:
            raise UsageError(
                f"the position table gives galaxy {found['galaxy_id']} two positions; keep one row per galaxy"
            )
        self._scratch.run(_PLACE, column=column)
        return column

    def _refuse_moved(self) -> None:
        """Refuse new claims to the ids of galaxies that stay: as duplicates they would be lost silently."""
        found = self._scratch.one(_MOVED)
        if found is not None:
            raise UsageError(
                f"{found['count']:,} galaxies of the catalog are now listed under other URIs (for example "
                f"{found['now']}, was {found['was']}): was the input moved? list both, or use a new catalog"
            )
