"""Files that differ only in the band: the frames of a field, or the FITS cutouts of a galaxy.

The band is the last part of the file's name that names a band (`field7-r.fits.bz2`, `r_1237648720.fits`). The
name decides, since headers are not always right. Together the files are one *band set*. Its URI has `BAND`
in place of the band. Its version consists of the versions of all its files, so that it changes with each.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import pyarrow as pa

from gax_batch.imaging import fits
from gax_batch.imaging.limits import MAX_PATH_CHARACTERS
from gax_batch.sources.base import as_utf8, is_named
from gax_batch.storage import UNKNOWN_SIZE, ObjectInfo
from gax_batch.system.disk_database import BATCH_ROWS, Scratch

BAND = "{band}"
"""Stands for the band in the URI of a band set."""

MISSING = "-"
"""The version of a file that is missing in a band set."""

SEPARATOR = "|"
"""Between versions."""

BAND_SETS = "band_sets"
"""The table of band sets.

It has the columns `uri`, `version`, `size` (bytes, null where unknown), `missing` (bands, or empty),
`problem` (fault of a name, or null), and the `first_band` and `first_version` of one of its files.
"""

_FILES = pa.schema(
    [
        pa.field("uri", pa.string()),
        pa.field("band", pa.string()),
        pa.field("version", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("problem", pa.string()),
    ]
)


def load_band_sets(scratch: Scratch, objects: Iterable[ObjectInfo], bands: Sequence[str]) -> int:
    """Create the tables `band_files` (a row per file) and `band_sets` from a listing.

    Args:
        scratch: Database that receives the tables.
        objects: FITS files named by a band. Other objects are skipped.
        bands: Required bands, from red to blue, in the order of the versions.

    Returns:
        The number of skipped objects.

    Raises:
        UsageError: The disk is full.
    """
    token = re.compile(rf"(?<![A-Za-z0-9])({'|'.join(bands)})(?![A-Za-z0-9])")
    ignored = 0

    def files() -> Iterator[tuple[str, str, str, int, str | None]]:
        nonlocal ignored
        for info in objects:
            folder, _, name = info.uri.rpartition("/")
            found = list(token.finditer(name)) if is_named(info.uri, fits.SUFFIXES) else []
            if not found:
                ignored += 1
                continue
            start, stop = found[-1].span()
            uri = as_utf8(f"{folder}/{name[:start]}{BAND}{name[stop:]}")
            yield uri, found[-1][0], info.version, info.size, name_problem(info.uri)

    scratch.load("band_files", _FILES, _batches(files()))
    scratch.run(_group(len(bands)), **{f"b{i}": band for i, band in enumerate(bands)})
    return ignored


def name_problem(uri: str) -> str | None:
    """Return why a file with this name cannot be a member, or None if it can."""
    if len(uri) > MAX_PATH_CHARACTERS:
        return f"the name has {len(uri)} characters, the limit is {MAX_PATH_CHARACTERS}; rename the file"
    if as_utf8(uri) != uri:
        return "the name of the file is not UTF-8; rename it"
    return f"{BAND} in the name stands for a band; rename the file" if BAND in uri else None


def band_objects(uri: str, version: str, bands: Sequence[str], size: int = UNKNOWN_SIZE) -> list[ObjectInfo]:
    """Return the files of a complete band set.

    Args:
        uri: URI of the set.
        version: Version of the set. What follows the versions of the bands is ignored.
        bands: Bands in the order of the versions.
        size: Size of all files in bytes. Each file counts as an equal share, which bounds concurrent reads.

    Returns:
        One object for each band.
    """
    share = size if size == UNKNOWN_SIZE else -(-size // len(bands))
    versions = version.split(SEPARATOR)[: len(bands)]
    return [ObjectInfo(uri.replace(BAND, b), share, v) for b, v in zip(bands, versions, strict=True)]


def missing_bands(version: str, bands: Sequence[str]) -> list[str]:
    """Return the bands that are missing in a set of this version."""
    return [b for b, v in zip(bands, version.split(SEPARATOR), strict=False) if v == MISSING]


def _batches(rows: Iterator[tuple[object, ...]]) -> Iterator[pa.Table]:
    while batch := list(islice(rows, BATCH_ROWS)):
        yield pa.table([pa.array(c, f.type) for c, f in zip(zip(*batch, strict=True), _FILES, strict=True)],
                       schema=_FILES)  # fmt: skip


def _group(bands: int) -> str:
    versions = ", ".join(
        f"coalesce(max(version) FILTER (WHERE band = $b{i}), '{MISSING}')" for i in range(bands)
    )
    missing = ", ".join(f"CASE WHEN NOT bool_or(band = $b{i}) THEN $b{i} END" for i in range(bands))
    return f"""
    CREATE TABLE {BAND_SETS} AS
    SELECT uri, concat_ws('{SEPARATOR}', {versions}) AS version,
        CASE WHEN min(size) >= 0 THEN sum(size)::BIGINT END AS size,
        concat_ws(', ', {missing}) AS missing, max(problem) AS problem,
        min(band) AS first_band, min_by(version, band) AS first_version
    FROM band_files GROUP BY uri
    """  # noqa: S608 (our own names)
