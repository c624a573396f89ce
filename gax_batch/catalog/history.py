"""The history of a catalog: list its snapshots, count the contents of one, restore one."""

import io
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain

from pyarrow import csv

from gax_batch import storage
from gax_batch.catalog import layout
from gax_batch.catalog.delta import Entry
from gax_batch.catalog.layout import PartName
from gax_batch.catalog.parts import Part, read_part
from gax_batch.catalog.properties import ADD_COLUMNS, SET_PROPERTIES
from gax_batch.catalog.schema import REJECTS
from gax_batch.catalog.snapshots import Catalog, open_existing
from gax_batch.errors import UsageError
from gax_batch.system.concurrency import map_threads

RESTORE = "restore"
VACUUM = "vacuum"


@dataclass(frozen=True, slots=True)
class Contents:
    """Counts of the contents of a snapshot."""

    entry: Entry
    units: int
    galaxies: int
    with_position: int
    settings: dict[str, int]
    """Units by settings fingerprint."""
    bundles: dict[str, int]
    """Galaxies by bundle."""
    classes: dict[str, int]
    """Galaxies by the first letters of `gz2_class`, the most frequent first."""
    rejects: dict[str, int]
    """Rejects by reason."""


def contents(catalog: Catalog) -> Contents:
    """Count the contents of a snapshot, part by part.

    Raises:
        UsageError: The snapshot can no longer be read.
        TransientError: The store kept failing.
    """
    bundles: Counter[str] = Counter()
    classes: Counter[str] = Counter()
    galaxies = placed = 0
    for table in catalog.batches(["bundle_id", "gz2_class", "ra"]):
        galaxies += len(table)
        placed += len(table) - table["ra"].null_count
        bundles.update(table["bundle_id"].to_pylist())
        classes.update((name or "")[:2] for name in table["gz2_class"].to_pylist())
    return Contents(
        entry=catalog.history()[0],
        units=len(catalog.parts()),
        galaxies=galaxies,
        with_position=placed,
        settings=dict(Counter(name.settings_fingerprint for name in catalog.parts()).most_common()),
        bundles=dict(bundles.most_common()),
        classes=dict(classes.most_common()),
        rejects=dict(sorted(Counter(catalog.rejects()["reason"].to_pylist()).items())),
    )


def rejects_csv(catalog: Catalog) -> Iterator[str]:
    """Yield the rejects of a snapshot as CSV, part by part, the header first. Raises as `contents` does."""
    for number, rows in enumerate(chain([REJECTS.empty_table()], catalog.reject_batches())):
        text = io.BytesIO()
        csv.write_csv(rows, text, csv.WriteOptions(include_header=not number))
        yield text.getvalue().decode()


def restore(uri: str, version: int) -> int:
    """Make the contents of an earlier snapshot the newest snapshot, by a commit; the history is kept.

    Args:
        uri: URI of the catalog.
        version: Number of the snapshot to restore.

    Returns:
        The number of the new snapshot, or of the newest one if it has the same contents.

    Raises:
        UsageError: There is no such snapshot, parts of it have been vacuumed, or another run has committed
            the same units at the same time; nothing was committed.
        FatalError: The store refused.
    """
    then, now = open_existing(uri, version), open_existing(uri)
    active = set(now.parts())
    parts = _stored(then, [name for name in then.parts() if name not in active], version)
    kept = {name.unit_id for name in then.parts()}
    removed = [name.unit_id for name in now.parts() if name.unit_id not in kept]
    return now.commit(
        parts,
        run_id=operation_id(RESTORE),
        metadata={"operation": RESTORE, "restored_version": version},
        removed=removed,
        restored=version,
    )


def operation_id(name: str) -> str:
    """Return an id, like that of a run, for a commit that is not of a run."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{name}-{secrets.token_hex(3)}"


def _stored(catalog: Catalog, names: Sequence[PartName], version: int) -> list[Part]:
    parts = list(map_threads(lambda name: read_part(catalog.uri, name), names))
    rejects = list(map_threads(lambda part: part is None or _has_rejects(catalog.uri, part), parts))
    found = [part for part, whole in zip(parts, rejects, strict=True) if part is not None and whole]
    if len(found) < len(names):
        raise UsageError(
            f"snapshot {version} of {catalog.uri} can no longer be restored: {len(names) - len(found):,} "
            "of its parts are missing (vacuumed, or deleted by hand); restore a later one"
        )
    return found


def _has_rejects(uri: str, part: Part) -> bool:
    return not part.rejects or storage.exists(layout.companion(uri, layout.REJECTS, part.key))


def log_lines(entries: Iterable[Entry], oldest: int = 0) -> list[str]:
    """Return the history as a table of text, in the order of `entries`.

    Args:
        entries: The commits.
        oldest: Number of the oldest snapshot that can still be opened. Those before it are marked.
    """
    lines = [f"{'snapshot':>8}  {'time (UTC)':19}  {'galaxies':>13}  {'added':>11}  {'removed':>11}  by"]
    for entry in entries:
        facts = entry.facts
        counts = [facts.get(name) for name in ("galaxies", "galaxies_added", "galaxies_removed")]
        total, added, removed = ("" if count is None else f"{int(count):,}" for count in counts)
        lines.append(
            f"{entry.version:>8}  {entry.time:%Y-%m-%d %H:%M:%S}  {total:>13}  {added:>11}  {removed:>11}  "
            f"{_author(entry)}{'' if entry.version >= oldest else ' (ended)'}"
        )
    return lines


def contents_lines(found: Contents) -> list[str]:
    """Return the contents of a snapshot as lines of text."""
    lines = [
        f"snapshot {found.entry.version} of {found.entry.time:%Y-%m-%d %H:%M:%S} UTC, {_author(found.entry)}",
        f"{found.galaxies:,} galaxies in {found.units:,} units, {found.with_position:,} with a position",
    ]
    lines += [f"  bundle {name}: {count:,} galaxies" for name, count in found.bundles.items()]
    lines += [f"  settings {name}: {count:,} units" for name, count in found.settings.items()]
    lines += [f"  class {name or 'none'}: {count:,}" for name, count in found.classes.items()]
    lines.append(f"{sum(found.rejects.values()):,} rejects")
    return lines + [f"  rejected {count:,}: {reason}" for reason, count in found.rejects.items()]


def _author(entry: Entry) -> str:
    facts = entry.facts
    if "run_id" not in facts:
        return "created, empty"
    if facts.get("operation") == RESTORE:
        return f"{facts['run_id']} (snapshot {facts['restored_version']} restored)"
    if facts.get("operation") == ADD_COLUMNS:
        return f"{facts['run_id']} (columns of a newer release added)"
    if facts.get("operation") == VACUUM:
        return f"{facts['run_id']} (snapshots before {facts['oldest']} ended)"
    if facts.get("operation") == SET_PROPERTIES:
        return f"{facts['run_id']} (properties of a newer release set)"
    return str(facts["run_id"])
