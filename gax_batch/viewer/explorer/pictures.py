"""Cutouts as pictures, read from the survey's files one page at a time, while the page is being sent."""

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
        """Create an empty store.

        Args:
            find: Returns the columns `NEEDED` of one galaxy of the catalog.
            read: Reads the cutouts of galaxies, given these columns, in their order.
        """
        self._find, self._read = find, read
        self._readers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="cutouts")
        self._batches: OrderedDict[str, Future[dict[str, tuple[bytes, str]]]] = OrderedDict()
        self._lock = threading.Lock()

    def fetch(self, galaxies: pa.Table) -> None:
        """Start reading cutouts that will be requested soon, all at once.

        Args:
            galaxies: The columns `NEEDED` of the galaxies, without duplicates.
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
        """Return a picture and its media type. If the cutout cannot be read, the picture states why.

        Raises:
            UsageError: The galaxy is not in the catalog.
            FatalError: The plan of a run is damaged.
            TransientError: The catalog's store kept failing. The next call tries again.
        """
        with self._lock:
            batch = self._batches.get(galaxy_id)
        if batch is None:
            # It was never fetched, or was fetched so long ago that it was dropped.
            return self._pictures(self._find(galaxy_id))[galaxy_id]
        try:
            return batch.result()[galaxy_id]
        finally:
            if batch.done() and batch.exception() is not None:
                with self._lock:
                    self._batches.pop(galaxy_id, None)

    def close(self) -> None:
        """Stop reading cutouts."""
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
