"""Prepare a run: list the input, compare it with the catalog, and predict the memory."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.catalog.layout import PartName, frames_folder, parts_folder
from gax_batch.catalog.snapshots import Catalog
from gax_batch.errors import UsageError
from gax_batch.imaging.rgb import PRESETS
from gax_batch.models.bundle import Bundle
from gax_batch.models.precision import BOTH, Rates, faster, rates_of_machine
from gax_batch.planning.plan import ClaimError, Plan, Unit, make_plan
from gax_batch.planning.unchanged_shards import SettledShards
from gax_batch.runner.fingerprint import Provenance, settings_fingerprint
from gax_batch.runner.setting_groups import SurveySettings
from gax_batch.runner.settings import RunSettings
from gax_batch.sources import (
    Settled,
    Source,
    open_band_files,
    open_frames,
    open_source,
    read_positions,
)
from gax_batch.storage.listing import list_objects
from gax_batch.system.machine import (
    MemoryNeed,
    Resources,
    cluster_address,
    local_resources,
    predict_memory,
)

logger = logging.getLogger(__name__)

_SHOWN_UNITS = 3
# This many cutouts may be removed whatever their fraction of a small survey.
_FEW_REMOVED = 10

Retries = Mapping[PartName, Collection[str] | None]
"""Members of the catalog to process again, by the part that holds them: their URIs, or None for all."""


def plan_run(
    settings: RunSettings,
    catalog: Catalog,
    fingerprint: str,
    folder: Path,
    *,
    keep_index: bool = True,
) -> Plan:
    """List the input, compare it with the catalog, and log what is new, changed and unchanged.

    Args:
        settings: Settings of the run.
        catalog: The catalog before the run.
        fingerprint: Fingerprint of the settings, from `settings_fingerprint`.
        folder: An empty folder on a local disk, in which the plan keeps its members.
        keep_index: Whether the index of frames is written.

    Returns:
        The plan of the run.

    Raises:
        UsageError: The input or a setting is wrong. At most the index of frames was written.
    """
    provenance = Provenance(catalog)
    retries = _retries(settings, catalog, fingerprint, provenance)
    index_folder = settings.frame_index or frames_folder(catalog.uri)
    open_survey = partial(open_input, settings, catalog.uri, keep_index=keep_index, index_folder=index_folder)
    compare = partial(_compare, settings, catalog, fingerprint, provenance, retries)
    settled = _settled_shards(settings, catalog, provenance.same_numbers(fingerprint), retries)
    try:
        source = open_survey(settled=settled)
        plan = compare(source, folder / "settled", settled)
    except ClaimError:
        source = open_survey()
        plan = compare(source, folder / "all", None)
    if not plan.counts.listed:
        raise UsageError(f"{settings.input} holds no cutouts; check --input")
    ignored = f" ({source.ignored:,} other objects ignored)" if source.ignored else ""
    logger.info(f"{plan.counts.listed:,} cutouts in {settings.input}{ignored}: {plan.counts}")
    report_positions(settings, plan)
    if plan.units or plan.removed:
        _refuse_shrinking(settings, plan)
        _refuse_removal(settings, catalog, plan)
    return plan


def report_changed_settings(
    settings: RunSettings, bundle: Bundle, catalog: Catalog, fingerprint: str
) -> None:
    """Log the changed settings that cause units to be processed again. Called before the listing."""
    for line in Provenance(catalog).changes(fingerprint, settings, bundle):
        logger.info(line)


def _retries(settings: RunSettings, catalog: Catalog, fingerprint: str, provenance: Provenance) -> Retries:
    """Return the members to process again because limits or companions differ from those of the last run."""
    retries: dict[PartName, Collection[str] | None] = {**provenance.limited(fingerprint, settings)}
    incomplete = provenance.incomplete(fingerprint, settings)
    if settings.redo_companions:
        return retries | dict.fromkeys(incomplete)
    if incomplete:
        names = ", ".join(name.unit_id for name in incomplete[:_SHOWN_UNITS])
        more = ", ..." if len(incomplete) > _SHOWN_UNITS else ""
        logger.info(
            f"{len(incomplete):,} units were made without sums or draws that these settings request ({names}"
            f"{more}); --redo-companions processes them again"
        )
    return retries


def _settled_shards(
    settings: RunSettings, catalog: Catalog, fingerprints: Collection[str], retries: Retries
) -> SettledShards | None:
    # With a table of positions, a limit or `full`, any row of any shard may change.
    if settings.full or settings.limit is not None or settings.positions is not None:
        return None
    return SettledShards(catalog, fingerprints, excluded=retries)


def _known(catalog: Catalog, passed_over: Collection[PartName], retries: Retries) -> Iterator[pa.Table]:
    """Yield the members of the catalog. Those of `retries` are retried whatever their number of attempts."""
    if not retries:
        yield from catalog.members(passed_over)
        return
    uris = pa.array([uri for some in retries.values() for uri in some or ()], pa.string())
    units = pa.array([name.unit_id for name, some in retries.items() if some is None], pa.string())
    for rows in catalog.members(passed_over):
        again = pc.or_(pc.is_in(rows["source_uri"], uris), pc.is_in(rows["unit_id"], units))
        none = pa.scalar(0, rows["attempts"].type)
        changed = {
            "attempts": pc.if_else(again, none, rows["attempts"]),
            "retry": pc.or_(again, pc.fill_null(rows["retry"], False)),
        }
        yield pa.table({**dict(zip(rows.column_names, rows.columns, strict=True)), **changed}, rows.schema)


def _compare(
    settings: RunSettings,
    catalog: Catalog,
    fingerprint: str,
    provenance: Provenance,
    retries: Retries,
    source: Source,
    folder: Path,
    settled: SettledShards | None,
) -> Plan:
    folder.mkdir()
    same = provenance.same_numbers(fingerprint)
    units = {
        unit: (fingerprint if settings_of in same else settings_of, members)
        for unit, (settings_of, members) in catalog.units().items()
    }
    return make_plan(
        source.list_members(),
        # The units that the listing skipped are known only when the first batch is requested.
        _known(catalog, () if settled is None else settled.units, retries),
        units,
        settings_fingerprint=fingerprint,
        unit_size=settings.unit_size,
        folder=folder,
        positions=joined_positions(settings),
        full=settings.full,
        prune=settings.prune,
        max_attempts=settings.max_attempts,
        settled=settled,
    )


def open_input(
    settings: SurveySettings,
    exclude: str,
    *,
    keep_index: bool,
    index_folder: str | None = None,
    settled: Settled | None = None,
) -> Source:
    """Open the survey that the settings name.

    Args:
        settings: Survey and decoding.
        exclude: Folder or prefix whose objects are not part of the survey.
        keep_index: Whether the index of frames is written.
        index_folder: Folder or prefix of the index of frames; None to use no index.
        settled: Unchanged shards whose rows are not listed, as for `open_source`.

    Returns:
        The source of the members.

    Raises:
        UsageError: The survey does not exist, or the settings contradict each other.
        TransientError: The store kept failing.
    """
    bands = PRESETS[settings.preset].bands
    if settings.frame_index is not None and not settings.frames:
        raise UsageError("--frame-index requires --frames; pass both or neither")
    if settings.band_files:
        if settings.frames or not bands:
            raise UsageError(
                "--band-files requires a --preset of several bands and excludes --frames, which always have "
                "one file per band; change --preset, or omit one of the two"
            )
        return open_band_files(
            settings.input,
            bands=bands,
            limit=settings.limit,
            exclude=exclude,
            limits=settings.listing_limits,
        )
    if not settings.frames:
        return open_source(
            settings.input,
            limit=settings.limit,
            exclude=exclude,
            settled=settled,
            limits=settings.listing_limits,
        )
    if settings.positions is None or not bands:
        raise UsageError("--frames requires --positions and a --preset of several bands; pass both")
    return open_frames(
        settings.input,
        settings.positions,
        bands=bands,
        limit=settings.limit,
        exclude=exclude,
        limits=settings.listing_limits,
        index_folder=index_folder,
        keep_index=keep_index,
    )


def joined_positions(settings: SurveySettings) -> Iterable[pa.Table]:
    """Return the positions to join to members by id. Positions on frames are members, so none are joined."""
    return () if settings.positions is None or settings.frames else read_positions(settings.positions)


def report_positions(settings: SurveySettings, plan: Plan) -> None:
    """Log how many cutouts are in the table of positions, and the column by which they were found.

    Raises:
        UsageError: The table does not have any cutout of the input, and `limit` is not set.
    """
    found = plan.matched
    if settings.positions is None or settings.frames:
        return
    if not found.in_table and settings.limit is None:
        columns = ", ".join(found.columns) or "it has no rows"
        raise UsageError(
            f"{settings.positions} has none of the {found.cutouts:,} cutouts of {settings.input} (its id "
            f"columns: {columns}; an id of the input: {found.example}); pass a table with the ids of the "
            "input, or omit --positions"
        )
    by = f" (by {found.column})" if found.column else ""
    without = found.cutouts - found.in_table - found.elsewhere
    logger.info(
        f"positions: {found.in_table:,} of {found.cutouts:,} cutouts are in {settings.positions}{by}; of the "
        f"others, {found.elsewhere:,} keep their position, {without:,} have none"
    )


def settle_precision(settings: RunSettings, bundle: Bundle, catalog: Catalog) -> RunSettings:
    """Replace the precision `auto` by the one that all workers use.

    It is the precision with which otherwise equal settings made most of the catalog, so that a run on another
    machine does not process units again. Without a commit, the parts of interrupted runs are counted instead.
    For a new catalog, it is the precision that is faster where the engines will run.

    Returns:
        The settings with the precision float32 or bfloat16.

    Raises:
        UsageError: No cluster answers at the address.
        FatalError: The measurement failed.
    """
    if settings.precision != "auto":
        return settings
    candidates = {name: settings.model_copy(update={"precision": name}) for name in BOTH}
    prints = {name: settings_fingerprint(each, bundle) for name, each in candidates.items()}
    provenance = Provenance(catalog)
    units = Counter(fingerprint for fingerprint, _ in catalog.units().values())
    made = {
        name: sum(units[other] for other in provenance.same_numbers(print_))
        for name, print_ in prints.items()
    }
    if not any(made.values()):
        folders = {name: parts_folder(catalog.uri, fingerprint) for name, fingerprint in prints.items()}
        made = {name: len(list_objects(folder, missing_ok=True)) for name, folder in folders.items()}
    if any(made.values()):
        return candidates[max(made, key=lambda name: made[name])]
    rates = _measure(settings)
    logger.debug(f"passes through the convolutions a second: {rates or 'not measured, on GPUs'}")
    chosen = "bfloat16" if rates is None else faster(rates)
    return candidates[chosen]


def _measure(settings: RunSettings) -> Rates | None:
    """Measure both precisions where the engines will run; None for GPUs, which support bfloat16."""
    if settings.engine_gpus:
        return None
    if cluster_address(settings.ray_address) is None:
        return rates_of_machine()
    from gax_batch.cluster import pipeline

    resources, _ = resources_of(settings)
    with pipeline.ray_session(resources):
        return pipeline.rates_of_cluster(int(settings.engine_cpus or 0))


def _refuse_shrinking(settings: RunSettings, plan: Plan) -> None:
    # A unit that is processed again loses its members that are not listed. A pruned unit loses all of them.
    if settings.limit is not None and plan.counts.vanished:
        raise UsageError(
            f"--limit {settings.limit} excludes {plan.counts.vanished:,} cutouts of {settings.catalog}; "
            "omit --limit, or use it with a separate catalog"
        )


def _refuse_removal(settings: RunSettings, catalog: Catalog, plan: Plan) -> None:
    """Refuse to prune much of a catalog, because the input is probably wrong or its listing incomplete."""
    vanished = plan.counts.vanished
    if not (settings.prune and vanished) or settings.max_removed >= 1:
        return
    total = sum(catalog.planned().values())
    if vanished > max(settings.max_removed * total, _FEW_REMOVED) or vanished >= total:
        raise UsageError(
            f"--prune would remove {vanished:,} of the {total:,} cutouts of {settings.catalog}, which "
            f"{settings.input} does not have: more than --max-removed {settings.max_removed:.3g}; check "
            "--input, or raise --max-removed"
        )


def resources_of(settings: RunSettings, units: Sequence[Unit] = ()) -> tuple[Resources, MemoryNeed]:
    """Return the resources that a run uses on this machine, and the memory that it needs.

    Args:
        settings: Settings of the run.
        units: Units to process. Units that are processed again keep their size, whatever the settings are.
            Without units, the result is the minimum for these settings.
    """
    kept = settings.stored_draws if settings.keep_draws else 0
    largest = max((unit.members for unit in units), default=1)
    resources = local_resources(
        cpus=settings.cpus,
        workers=settings.workers,
        object_store_mib=settings.object_store_mib,
        unit_size=largest,
        kept_draws=kept,
        address=settings.ray_address,
    )
    resources = replace(resources, engine_cpus=settings.engine_cpus, engine_gpus=settings.engine_gpus)
    need = predict_memory(
        resources,
        units=len(units),
        unit_size=largest,
        passes=settings.most_passes,
        draws=settings.draws,
        kept_draws=kept,
    )
    return resources, need
