"""A Delta table's log, file by file: the oldest snapshot that it has, and what each commit did."""

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
    """What one commit did: keys of the files that it added, and of those that it removed."""

    version: int
    added: frozenset[str]
    removed: frozenset[str]


def commit_file(root: str, version: int) -> str:
    """Return the URI of the log's entry that makes a snapshot; `root` is the table's URI."""
    return storage.join(root, DELTA_LOG, f"{version:020}.json")


def first_snapshot(root: str) -> int:
    """Return the number of the oldest snapshot that can be made from what is left of the log."""
    files = (_FILE.search(info.uri) for info in list_objects(storage.join(root, DELTA_LOG), missing_ok=True))
    found = {(int(match[1]), match[2]) for match in files if match}
    # Without its first entry, a log can be read from its first checkpoint on.
    checkpoints = (number for number, kind in found if kind != "json")
    return 0 if (0, "json") in found else min(checkpoints, default=0)


def changes(root: str, after: int, until: int) -> Iterator[Change]:
    """Read what each commit later than `after`, up to `until`, added and removed.

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
