"""The index of frames: a Parquet file of footprints, so that later runs need not open the same headers.

It is stored in the catalog or in a folder that the user names. It has one row for each field: the footprint
of its first available band, and the version of that file. Only headers of new or changed files are opened. A
damaged or foreign index is built again, since the headers contain everything in it. It is replaced as a
whole, so that an interrupted write leaves the old one.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from gax_batch import storage
from gax_batch.errors import TransientError, UsageError
from gax_batch.imaging import fits
from gax_batch.imaging.wcs import Projection
from gax_batch.sources.bands import BAND, BAND_SETS
from gax_batch.sources.footprints import FOOTPRINT_FIELDS, are_valid, footprint
from gax_batch.system.concurrency import map_threads
from gax_batch.system.disk_database import Scratch

logger = logging.getLogger(__name__)

INDEX_NAME = ".gax-frames.parquet"
HEADERS_PER_ROUND = 16_384
"""Headers that are opened before the index is stored: the maximum that a terminated first build loses."""

INDEX_SCHEMA = pa.schema(
    [
        pa.field("field", pa.string(), nullable=False),
        pa.field("band", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        *FOOTPRINT_FIELDS,
    ],
    metadata={"gax_batch": "frame index 1"},
)
"""Columns of the index.

`field` is a URI with `{band}` in place of the band; `band` and `version` are those of the opened file.
"""

_KNOWN = "indexed.field = uri AND indexed.band = first_band AND indexed.version = first_version"
_NEW = f"""
SELECT uri AS field, first_band AS band, first_version AS version
FROM {BAND_SETS} ANTI JOIN indexed ON {_KNOWN} WHERE problem IS NULL ORDER BY uri LIMIT $count
"""  # noqa: S608 (our own names)
_LISTED = "SELECT uri, band, version FROM band_files"
# Keep the rows of other bands or folders, and unlisted rows if only a part of the folder was listed.
_DROP = f"""
DELETE FROM indexed WHERE (field, band, version) NOT IN ({_LISTED})
    AND ((field, band) IN (SELECT uri, band FROM band_files)
        OR $whole AND starts_with(field, $below) AND list_contains($bands, band))
"""  # noqa: S608 (our own names)
_FOUND = f"""
SELECT uri, {BAND_SETS}.version AS versions, size, indexed.* EXCLUDE (field, band, version)
FROM {BAND_SETS} JOIN indexed ON {_KNOWN} ORDER BY uri
"""  # noqa: S608 (our own names)
_TWICE = "SELECT field FROM indexed GROUP BY field, band HAVING count(*) > 1 LIMIT 1"


@dataclass(frozen=True, slots=True)
class FrameIndex:
    """The place of an index, and the listing that it indexes.

    Attributes:
        folder: Folder of the index; None to keep no index.
        root: Root of the listing: a folder, or the URI of a single frame.
        whole: Whether everything below `root` was listed.
        bands: Required bands.
        keep: Whether to write the index.
    """

    folder: str | None
    root: str
    whole: bool
    bands: tuple[str, ...]
    keep: bool

    @property
    def uri(self) -> str | None:
        """URI of the index; None to keep no index."""
        return None if self.folder is None else storage.join(self.folder, INDEX_NAME)

    def fields(self, scratch: Scratch) -> pa.Table:
        """Update the index to the listing.

        Args:
            scratch: Database with the tables of `load_band_sets`.

        Returns:
            `uri`, `versions`, `size` and `FOOTPRINT_FIELDS` of each field, in the order of the URIs.

        Raises:
            UsageError: A frame cannot be used. The index keeps the footprints of the others.
            TransientError: The store kept failing.
        """
        scratch.load("indexed", INDEX_SCHEMA, [])
        if self.uri is not None:
            self._load(scratch, self.uri)
        keep = self.keep
        before = _count(scratch, "indexed")
        scratch.run(_DROP, whole=self.whole, below=f"{self.root}/", bands=list(self.bands))
        dropped = before - _count(scratch, "indexed")
        opened = 0
        while len(new := scratch.table(_NEW, count=HEADERS_PER_ROUND)):
            rows, faults = _read_headers(new)
            scratch.insert("indexed", INDEX_SCHEMA, pa.Table.from_pylist(rows, INDEX_SCHEMA))
            opened += len(rows)
            keep = keep and self._store(scratch)
            if faults:
                more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
                raise UsageError(f"the frame {faults[0]}{more}; repair or remove it")
        if opened:
            logger.info(f"frames: {opened:,} of {_count(scratch, BAND_SETS):,} fields are new or changed")
        elif dropped and keep:
            self._store(scratch)
        return scratch.table(_FOUND)

    def _load(self, scratch: Scratch, uri: str) -> None:
        """Fill the table `indexed` from the stored index. Leave it empty if the index cannot be used."""
        try:
            for rows in _read(uri):
                scratch.insert("indexed", INDEX_SCHEMA, rows)
            if scratch.one(_TWICE) is None:
                return
            problem = "it contains a field twice"
        except FileNotFoundError:
            return
        except (OSError, TransientError, pa.ArrowException, ValueError) as error:
            problem = str(error).strip().partition("\n")[0][:200]
        scratch.run("DELETE FROM indexed")
        logger.info(f"the index of frames {uri} cannot be used and is built again: {problem}")

    def _store(self, scratch: Scratch) -> bool:
        """Write the index. If that fails, log it and return False."""
        if self.uri is None:
            return False
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, INDEX_SCHEMA, compression="zstd", write_page_checksum=True) as writer:
            for rows in scratch.stream("SELECT * FROM indexed ORDER BY field, band"):
                writer.write_table(rows.cast(INDEX_SCHEMA))
        try:
            storage.write_bytes(self.uri, sink.getvalue().to_pybytes())
        except (OSError, TransientError) as error:
            logger.info(
                f"the index of frames cannot be stored as {self.uri} ({error}): every run opens them again; "
                "name a folder for it with --frame-index"
            )
            return False
        return True


def _read(uri: str) -> Iterator[pa.Table]:
    """Yield the batches of a stored index.

    Raises:
        ValueError: It is damaged, or not an index.
        OSError, TransientError, ArrowException: It cannot be read.
    """
    with storage.open_binary(uri) as file:
        stored = pq.ParquetFile(file, page_checksum_verification=True)
        if not stored.schema_arrow.equals(INDEX_SCHEMA, check_metadata=True):
            raise ValueError("it is not an index of this version")
        for batch in stored.iter_batches():
            rows = pa.Table.from_batches([batch])
            rows.validate(full=True)
            if not are_valid(rows):
                raise ValueError("it contains an invalid footprint")
            yield rows


def _read_headers(new: pa.Table) -> tuple[list[dict[str, object]], list[str]]:
    """Return the rows of frames, and the faults of the frames that do not give a row."""
    found = list(map_threads(_read_header, new.to_pylist()))
    return [row for row in found if isinstance(row, dict)], [why for why in found if isinstance(why, str)]


def _read_header(frame: dict[str, str]) -> dict[str, object] | str:
    uri = frame["field"].replace(BAND, frame["band"])
    try:
        with storage.open_binary(uri) as file:
            return frame | footprint(Projection.of_header(fits.read_header(file)))
    except (OSError, ValueError) as error:
        return f"{uri} cannot be used: {' '.join(str(error).split())}"


def _count(scratch: Scratch, table: str) -> int:
    row = scratch.one(f"SELECT count(*) AS rows FROM {table}")  # noqa: S608 (our own names)
    return int(row["rows"]) if row else 0
