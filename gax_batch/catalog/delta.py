"""The Delta table of a catalog: open, create, list active parts, commit.

The table needs the oldest protocol (reader 1, writer 2), so that every reader of Delta Lake opens it: no
deletion vectors, no column mapping, no v2 checkpoints, no partitions. Commits are optimistic: the next log
file is created only if it does not exist. S3 (by conditional put), GCS, Azure and local disks all decide this
atomically, so that one of two concurrent commits fails.
"""

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import unquote

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from gax_batch import storage
from gax_batch.catalog.layout import PartName
from gax_batch.catalog.log import commit_file, first_snapshot
from gax_batch.errors import FatalError, NoAnswerError, UsageError
from gax_batch.storage import client_errors, local_path

FORMAT_KEY = "gax.formatVersion"
FORMAT_VERSION = 3
READ_FORMATS = (2, 3)
OLDEST_KEY = "gax.oldestSnapshot"
PROPERTIES = {
    FORMAT_KEY: str(FORMAT_VERSION),
    # By default, delta-rs and Spark delete the log of snapshots older than 30 days at every checkpoint.
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
}
"""Properties of every table. With them, only `vacuum` deletes snapshots."""

Answer = TypeVar("Answer")

_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m|↳")
ANSWER_ATTEMPTS = 5
_AWKWARD = re.compile(r"[^A-Za-z0-9._~=+@:/-]")


@dataclass(frozen=True, slots=True)
class NewFile:
    """A part to add: its key below the root of the table, size in bytes, and statistics as Delta's JSON."""

    key: str
    size: int
    stats: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One commit: the number of its snapshot, its time, and the facts that its author stored with it."""

    version: int
    time: datetime
    facts: dict[str, Any]


class LostRaceError(Exception):
    """Raised if another commit came first; nothing was committed."""


class Table:
    """One Delta table at one snapshot. The table may not exist yet."""

    def __init__(self, uri: str, version: int | None = None) -> None:
        """Open a table.

        Args:
            uri: URI of the root of the table.
            version: Number of the snapshot to open; the newest if None.

        Raises:
            UsageError: The table cannot be read, does not have this snapshot, is not the table of a catalog,
                or has a newer format.
        """
        self.uri = uri
        self._pinned = version
        path = local_path(uri)
        self._location = uri if path is None else str(path)
        self._options = _storage_options()
        _check_location(self._location, is_local=path is not None)
        self._table: DeltaTable | None = None
        # If the table is opened at one snapshot: number and properties of the newest snapshot.
        self._newest: tuple[int, dict[str, str]] | None = None
        self.refresh()

    @property
    def version(self) -> int | None:
        """The number of the snapshot; None if the table does not exist."""
        return None if self._table is None else int(self._table.version())

    def refresh(self) -> None:
        """Move to the newest snapshot. A table that was opened at one snapshot stays there."""
        try:
            if self._table is None:
                self._table = self._open()
            elif self._pinned is None:
                _whole_answer(self._table.update_incremental)
        except TableNotFoundError:
            return
        except (DeltaError, OSError) as error:
            raise UsageError(f"the table {self.uri} cannot be read: {_cause(self.uri, error)}") from error

    def parts(self) -> list[PartName]:
        """Return the active parts, sorted.

        Raises:
            UsageError: The table has files that this package did not write.
        """
        if self._table is None:
            return []
        keys = pa.table(self._table.get_add_actions())["path"].to_pylist()
        names = [PartName.parse(unquote(key)) for key in keys]
        for name, key in zip(names, keys, strict=True):
            if name is None:
                raise UsageError(
                    f"{self.uri} was changed by another program (file {key}); "
                    "restore an earlier version of the table, or start a new catalog"
                )
        return sorted(name for name in names if name is not None)

    def rows(self) -> dict[str, int]:
        """Return the number of rows of every active file, by its key."""
        if self._table is None:
            return {}
        actions = pa.table(self._table.get_add_actions())
        keys, counts = actions["path"].to_pylist(), actions["num_records"].to_pylist()
        return {unquote(key): int(count or 0) for key, count in zip(keys, counts, strict=True)}

    def bounds(self, column: str) -> dict[str, tuple[Any, Any]]:
        """Return the minimum and maximum of a column in every active file with values, by its key."""
        if self._table is None:
            return {}
        actions = pa.table(self._table.get_add_actions(flatten=True))
        names = ("path", f"min.{column}", f"max.{column}")
        columns = (actions[name].to_pylist() for name in names)
        return {unquote(key): (low, high) for key, low, high in zip(*columns, strict=True) if low is not None}

    def history(self) -> list[Entry]:
        """Return the commits up to this snapshot that the log still contains, the newest first."""
        if self._table is None:
            return []
        prefix = "gax."
        # delta-rs lists newer commits too, but counts down from the snapshot that is loaded.
        newest = DeltaTable(self._location, storage_options=self._options)
        number = int(self._table.version())
        return [
            Entry(
                version=int(info["version"]),
                time=datetime.fromtimestamp(info.get("timestamp", 0) / 1000, UTC),
                facts={k.removeprefix(prefix): v for k, v in info.items() if k.startswith(prefix)},
            )
            for info in newest.history()
            if int(info["version"]) <= number
        ]

    def oldest(self) -> int:
        """Return the number of the oldest snapshot that can still be opened."""
        return max(first_snapshot(self.uri), self._ended_before())

    def require(self, version: int) -> None:
        """Refuse a snapshot that `vacuum` has deleted, or that does not exist yet.

        Raises:
            UsageError: There is no such snapshot; one line, with the oldest and the newest snapshot.
        """
        if not self._ended_before() <= version <= self._last():
            raise self._no_snapshot(version)

    def create(self, name: str, description: str, schema: pa.Schema) -> None:
        """Create the empty table. Does nothing if another run has just created it.

        Args:
            name: Name of the table.
            description: Description of the table.
            schema: Columns of the table.

        Raises:
            FatalError: The table cannot be created.
        """
        try:
            DeltaTable.create(
                self._location,
                schema,
                name=name,
                description=description,
                configuration=PROPERTIES,
                storage_options=self._options,
                raise_if_key_not_exists=False,
            )
        except (DeltaError, OSError) as error:
            self.refresh()
            if self._table is None:
                raise FatalError(f"the table {self.uri} cannot be created: {one_line(error)}") from error
        self.refresh()

    def columns(self) -> set[str]:
        """Return the names of the table's columns."""
        return set() if self._table is None else {field.name for field in self._table.schema().fields}

    def configuration(self) -> dict[str, str]:
        """Return the properties of the table in its newest snapshot."""
        if self._newest is not None:
            return self._newest[1]
        return {} if self._table is None else self._table.metadata().configuration

    def alter(
        self, change: Callable[[DeltaTable, CommitProperties], None], metadata: Mapping[str, str | int]
    ) -> None:
        """Change the metadata of the table by a commit, which repeats the facts of the newest one.

        Args:
            change: Function that changes a table by one commit with the given properties.
            metadata: Facts that are stored with the commit, besides those of the newest one.

        Raises:
            LostRaceError: The snapshot is no longer the newest.
            FatalError: The store refused.
        """
        if self._table is None:
            raise FatalError(f"the table {self.uri} does not exist")
        facts = {**self.history()[0].facts, **metadata}
        facts |= {name: 0 for name in facts if name.endswith(("_added", "_removed"))}
        noted = {f"gax.{key}": value for key, value in facts.items()}
        try:
            change(self._table, CommitProperties(custom_metadata=noted, max_commit_retries=0))
        except CommitFailedError as error:
            raise LostRaceError(one_line(error)) from error
        except (DeltaError, OSError) as error:
            raise FatalError(f"the commit to {self.uri} failed: {one_line(error)}") from error

    def commit(
        self,
        add: Sequence[NewFile],
        remove: Sequence[str],
        *,
        metadata: Mapping[str, str | int],
    ) -> None:
        """Replace files in one transaction on top of this snapshot, and move to the newest snapshot.

        Args:
            add: Files to add.
            remove: Keys of the files to remove.
            metadata: Facts that are stored with the commit.

        Raises:
            LostRaceError: The snapshot is no longer the newest.
            FatalError: The store refused.
        """
        if self._table is None:
            raise FatalError(f"the table {self.uri} does not exist")
        mine = commit_file(self.uri, self._table.version() + 1)
        now = time.time_ns() // 1_000_000
        actions: list[AddAction | RemoveAction] = [
            RemoveAction(path=key, data_change=True, deletion_timestamp=now) for key in remove
        ]
        actions += [AddAction(file.key, file.size, {}, now, True, file.stats) for file in add]
        properties = CommitProperties(
            custom_metadata={f"gax.{key}": value for key, value in metadata.items()},
            max_commit_retries=0,
        )
        try:
            self._table.create_write_transaction(
                actions, "append", self._table.schema(), commit_properties=properties
            )
        except CommitFailedError as error:
            raise LostRaceError(one_line(error)) from error
        except (DeltaError, OSError) as error:
            raise FatalError(f"the commit to {self.uri} failed: {one_line(error)}") from error
        finally:
            self.refresh()
        if not storage.exists(mine):
            raise FatalError(
                f"the store accepted the commit to {self.uri}, but lost it; run the same command again"
            )

    def _open(self) -> DeltaTable:
        table = _whole_answer(lambda: DeltaTable(self._location, storage_options=self._options))
        self._check_format(table)
        if self._pinned is None:
            return table
        version, self._newest = self._pinned, (int(table.version()), table.metadata().configuration)
        self.require(version)
        try:
            _whole_answer(lambda: table.load_as_version(version))
        except (DeltaError, OSError):
            # delta-rs deletes the log of old snapshots of tables without the properties of this release.
            if version < first_snapshot(self.uri):
                raise self._no_snapshot(version) from None
            raise
        return table

    def _no_snapshot(self, version: int) -> UsageError:
        return UsageError(
            f"{self.uri} has no snapshot {version}: the oldest is {self.oldest()}, the newest "
            f"{self._last()}; `gax catalog log` lists them"
        )

    def _last(self) -> int:
        """Return the number of the newest snapshot that this object knows; -1 if the table does not exist."""
        return int(self._newest[0] if self._newest else -1 if self._table is None else self._table.version())

    def _ended_before(self) -> int:
        """Return the number of the oldest snapshot that `vacuum` has kept."""
        return int(self.configuration().get(OLDEST_KEY, 0))

    def _check_format(self, table: DeltaTable) -> None:
        written = table.metadata().configuration.get(FORMAT_KEY)
        if written is None:
            raise UsageError(f"{self.uri} is a Delta table, but not a gax catalog; choose another place")
        if not written.isdecimal() or int(written) > FORMAT_VERSION:
            raise UsageError(
                f"{self.uri} has catalog format {written}, newer than {FORMAT_VERSION}; update gax-batch"
            )
        if int(written) not in READ_FORMATS:
            raise UsageError(
                f"{self.uri} has catalog format {written}, older than {READ_FORMATS[0]}; "
                "start a new catalog, or use the gax-batch that wrote it"
            )


def _whole_answer(ask: Callable[[], Answer]) -> Answer:
    """Repeat a request whose answer from the store breaks off, which delta-rs does not do by itself."""
    for _ in range(ANSWER_ATTEMPTS - 1):
        try:
            return ask()
        except OSError as error:  # of the store; faults of the table are DeltaErrors
            if not client_errors.broke_off(_flat(error)):
                raise
    return ask()


def _cause(uri: str, error: Exception) -> str:
    """Return why a table could not be read, and what to do."""
    fault = client_errors.fault(uri, _flat(error)) if isinstance(error, OSError) else None
    match fault:
        case client_errors.NoBucketError():
            return "there is no such bucket; check its name and the endpoint in the environment"
        case PermissionError():
            return "access refused; check the credentials in the environment"
        case NoAnswerError():
            return "the store does not answer; check the endpoint in the environment and the network"
    return f"{one_line(error)}; check its name and that its log is complete"


def one_line(error: Exception) -> str:
    """Return the message of an error as one short line, without terminal codes and URL queries."""
    return re.sub(r"(https?://[^\s?]+)\?\S+", r"\1", _flat(error))[:300]


def _flat(error: Exception) -> str:
    return " ".join(_TERMINAL_CODES.sub(" ", str(error)).split())


def _storage_options() -> dict[str, str]:
    # The store reads everything else from the environment itself.
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return {"AWS_ALLOW_HTTP": "true"} if endpoint.startswith("http://") else {}


def _check_location(location: str, *, is_local: bool) -> None:
    # delta-rs percent-encodes such names in one place and not in another.
    if "%" in location or (not is_local and _AWKWARD.search(location.partition("://")[2])):
        raise UsageError(
            f"{location} cannot hold a catalog: use only letters, digits and . _ - = in its name"
        )
