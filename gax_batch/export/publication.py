"""Publish a snapshot of a catalog, or a selection of it, for `gax publish`.

Only this module of the package uses the cluster.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TypeVar

from gax_batch import storage
from gax_batch.analysis.conditional import Conditional
from gax_batch.catalog import layout
from gax_batch.catalog.snapshots import Catalog
from gax_batch.errors import FatalError, UsageError
from gax_batch.export.formats import Format, Names
from gax_batch.export.hats_catalog import publish_hats
from gax_batch.export.manifest import HatsSettings
from gax_batch.export.selection import Selection, choose_columns
from gax_batch.export.tables import publish_table
from gax_batch.export.tiling import margin_order_of
from gax_batch.export.votable import TableProvenance
from gax_batch.models.bundle import load_bundle
from gax_batch.storage.listing import list_objects
from gax_batch.system.cpus import logical_cpus
from gax_batch.system.extras import require_extra
from gax_batch.system.machine import MIB, Resources, cluster_address
from gax_batch.system.stderr import quiet_native_stderr

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

OBJECT_STORE_BYTES = 256 * MIB


@dataclass(frozen=True, slots=True)
class Request:
    """Settings of a publication.

    Attributes:
        catalog: URI of the catalog.
        output: Folder or prefix of a HATS collection, or URI of a file.
        form: Format of the publication.
        columns: Names or globs of columns; empty for all.
        where: SQL expression that galaxies must fulfill; None for all galaxies.
        version: Number of the snapshot; None for the newest.
        replace: Whether to replace an existing file, or a collection of another selection.
        pixel_threshold: Maximum number of galaxies in a HATS pixel.
        margin_arcsec: Width of the HATS margin cache, arcsec; 0 for none.
        conditional: Whether to add conditional fractions with intervals.
        bundle: Bundle of the catalog, from which intervals of conditional fractions are derived.
        title: Title of the publication.
        reference: Publication to cite: a bibcode, a DOI or a URL.
        license: License of the publication: a name or a URL.
        names: Naming scheme of additional fractions.
    """

    catalog: str
    output: str
    form: Format
    columns: Sequence[str] = ()
    where: str | None = None
    version: int | None = None
    replace: bool = False
    pixel_threshold: int = 200_000
    margin_arcsec: float = 10.0
    conditional: bool = False
    bundle: str | None = None
    title: str | None = None
    reference: str | None = None
    license: str | None = None
    names: Names | None = None


def publish(request: Request) -> None:
    """Publish a snapshot of a catalog.

    Args:
        request: Settings of the publication.

    Raises:
        UsageError: The catalog, the selection or the output cannot be used, or the package of the format is
            not installed.
        FatalError: A part is missing or unreadable, or the output cannot be written.
        TransientError: The store kept failing.
    """
    if request.form is Format.HATS:
        require_extra("export", "gax publish --format hats", "hats")
    output = storage.normalize_uri(request.output)
    columns = choose_columns(request.columns, conditional=request.conditional, names=request.names)
    derives = request.conditional or request.names is not None
    conditional = Conditional.of_bundle(load_bundle(request.bundle)) if derives else None
    selection = Selection(columns, request.where, conditional, request.names)
    catalog = Catalog(request.catalog, request.version)
    if catalog.version is None:
        raise UsageError(f"{request.catalog} is not a catalog; create one with gax run")
    if storage.is_within(output, catalog.uri) or storage.is_within(catalog.uri, output):
        raise UsageError(f"{request.output} contains the catalog or is within it; choose another output")
    # Check the expression before anything is read or written.
    next(selection.read("", ()), None)
    provenance = TableProvenance(
        catalog.uri,
        catalog.version,
        where=request.where,
        title=request.title,
        reference=request.reference,
        license=request.license,
    )
    root, keys = layout.table(catalog.uri, layout.GALAXIES_TABLE), [part.key for part in catalog.parts()]
    try:
        if request.form is Format.HATS:
            _publish_sky(request, root, keys, selection, provenance, output)
        else:
            _check_file(output, replace_it=request.replace)
            table = publish_table(root, keys, selection, provenance, request.form, output)
            logger.info(f"{table.rows:,} galaxies, {table.without_position:,} of them without a position")
    except OSError as error:
        raise FatalError(f"{request.output} cannot be written: {error}; free space or check it") from error
    logger.info(f"snapshot {catalog.version} of {request.catalog} is published at {request.output}")


def _publish_sky(
    request: Request,
    root: str,
    keys: Sequence[str],
    selection: Selection,
    provenance: TableProvenance,
    output: str,
) -> None:
    margin_order_of(request.margin_arcsec)
    if not {"ra", "dec"} <= set(selection.columns):
        logger.info("ra and dec are added to the columns, since a HATS catalog requires them")
        added = [name for name in ("ra", "dec") if name not in selection.columns]
        selection = replace(selection, columns=(*selection.columns, *added))
    settings = HatsSettings(selection, request.pixel_threshold, request.margin_arcsec)
    storage.check_writable(output)
    with ExitStack() as stack:
        done = publish_hats(
            root, keys, settings, provenance, output, _Cluster(stack), replace_it=request.replace
        )
    logger.info(f"{done.rows:,} galaxies in {done.tiles:,} pixels")
    logger.info(f"omitted, since they have no position: {done.without_position:,} galaxies")
    if done.written or done.removed:
        logger.info(f"written: {done.written:,} pixels and margins; removed: {done.removed:,} files")
    else:
        logger.info("no pixel has changed")


class _Cluster:
    """Runs tasks on Ray, which is started only for more than one task."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._started = False

    def __call__(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        if len(items) <= 1:
            yield from map(function, items)
            return
        from gax_batch.cluster import pipeline

        if not self._started:
            self._started = True
            self._stack.enter_context(quiet_native_stderr())
            resources = Resources(logical_cpus(), None, OBJECT_STORE_BYTES, address=cluster_address())
            self._stack.enter_context(pipeline.ray_session(resources))
        yield from pipeline.map_tasks(function, items)


def _check_file(output: str, *, replace_it: bool) -> None:
    """Refuse a folder, and an existing file that may not be replaced."""
    there = next(iter(list_objects(output, missing_ok=True)), None)
    if there is not None and there.uri != output:
        raise UsageError(f"{output} is a folder; pass a file name, such as {output}/galaxies.parquet")
    if there is not None and not replace_it:
        raise UsageError(f"{output} already exists; choose another name, or pass --replace")
