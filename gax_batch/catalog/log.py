"""Read the log of a Delta table, file by file: its oldest snapshot and the changes of each commit."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from gax_batch import storage
from gax_batch.catalog.layout import DELTA_LOG
from gax_batch.errors import FatalError
from gax_batch.storage.listing import list_objects
from gax_batch.system.concurrency import map_threads

_FILE = re.compile(r"/(\d{20})\.(json|checkpoint\.parquet)$")


@dataclass(frozen=True, slots=True)
class Change:
    """The changes of one commit: the keys of the files that it added and of those that it removed."""

    version: int
    added: frozenset[str]
    removed: frozenset[str]


def commit_file(root: str, version: int) -> str:
    """Return the URI of the log entry of a snapshot; `root` is the URI of the table."""
    return storage.join(root, DELTA_LOG, f"{version:020}.json")


def first_snapshot(root: str) -> int:
    """Return the number of the oldest snapshot that the files of the log can reconstruct."""
    files = (_FILE.search(info.uri) for info in list_objects(storage.join(root, DELTA_LOG), missing_ok=True))
    found = {(int(match[1]), match[2]) for match in files if match}
    # A log without its first entry can be read from its first checkpoint on.
    checkpoints = (number for number, kind in found if kind != "json")
    return 0 if (0, "json") in found else min(checkpoints, default=0)


def changes(root: str, after: int, until: int) -> Iterator[Change]:
    """Read the changes of each commit later than snapshot `after`, up to snapshot `until`.

    Raises:
        FatalError: An entry of the log is missing or unreadable.
        TransientError: The store kept failing.
    """

    def read(version: int) -> Change:
        uri = commit_file(root, version)
        try:
            actions = [json.loads(line) for line in storage.read_bytes(uri).splitlines() if line.strip()]
            added, removed = (
                frozenset(unquote(action[kind]["path"]) for action in actions if kind in action)
                for kind in ("add", "remove")
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise FatalError(f"the catalog is damaged: {uri} cannot be read ({error})") from error
        return Change(version, added, removed)

    yield from map_threads(read, range(after + 1, until + 1))
