"""Cutouts as pictures, read from the survey's own files a page at a time, while the page is on its way."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from html import escape

import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.analysis.cutouts import Cutouts
from gax_batch.viewer.png import png

_KEPT = 512
Find = Callable[[str], pa.Table]
Read = Callable[[pa.Table], Cutouts]


class Pictures:
    """Pictures by `galaxy_id`."""

    def __init__(self, find: Find, read: Read) -> None:
        """Make an empty store.

        Args:
            find: Gives the columns `NEEDED` of one galaxy of the catalog.
            read: Reads the cutouts of galaxies of which these columns are given, in their order.
        """
        self._find, self._read = find, read
        self._readers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="cutouts")
        self._batches: OrderedDict[str, Future[dict[str, tuple[bytes, str]]]] = OrderedDict()
        self._lock = threading.Lock()

    def fetch(self, galaxies: pa.Table) -> None:
        """Begin to read cutouts that will be asked for, all at once.

        Args:
            galaxies: The columns `NEEDED` of them, no galaxy twice.
        """
        with self._lock:
            known = pa.array(self._batches, pa.string())
            new = galaxies.filter(pc.invert(pc.is_in(galaxies["galaxy_id"], known)))
            if len(new):
                batch = self._readers.submit(self._pictures, new)
                self._batches |= dict.fromkeys(new["galaxy_id"].to_pylist(), batch)
            while len(self._batches) > _KEPT:
                self._batches.popitem(last=False)

    def get(self, galaxy_id: str) -> tuple[bytes, str]:
        """Return a picture and its media type; where the cutout cannot be read, one that says why.

        Raises:
            UsageError: It is not in the catalog.
            FatalError: The plan of a run is damaged.
            TransientError: The catalog's store kept failing; the next call tries again.
        """
        with self._lock:
            batch = self._batches.get(galaxy_id)
        if batch is None:
            # Nobody fetched it, or so long ago that it was given up.
            return self._pictures(self._find(galaxy_id))[galaxy_id]
        try:
            return batch.result()[galaxy_id]
        finally:
            if batch.done() and batch.exception() is not None:
                with self._lock:
                    self._batches.pop(galaxy_id, None)

    def close(self) -> None:
        """Read nothing more."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    def _pictures(self, galaxies: pa.Table) -> dict[str, tuple[bytes, str]]:
        found = self._read(galaxies)
        return {
            name: _missing(str(found.missing[row].reason))
            if row in found.missing
            else (png(found.pixels[row]), "image/png")
            for row, name in enumerate(galaxies["galaxy_id"].to_pylist())
        }


def _missing(reason: str) -> tuple[bytes, str]:
    text = escape(reason.replace("_", " "))
    drawing = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64">'
        '<rect width="64" height="64" fill="#3a404b"/><g fill="#fff" font-family="sans-serif" font-size="8" '
        'text-anchor="middle"><text x="32" y="30">no cutout:</text>'
        f'<text x="32" y="41">{text}</text></g></svg>'
    )
    return drawing.encode(), "image/svg+xml"
