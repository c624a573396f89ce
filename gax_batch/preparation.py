"""What stands before a run, and tells what it would do: list, compare, and predict the memory."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pyarrow as pa

from gax_batch.catalog.snapshots import Catalog
from gax_batch.config import RunSettings
from gax_batch.errors import UsageError
from gax_batch.listing import list_objects
from gax_batch.machine import (
    MemoryNeed,
    Resources,
    cluster_address,
    faster_precision,
    local_resources,
    predict_memory,
)
from gax_batch.models.bundle import Bundle
from gax_batch.paths import parts_folder
from gax_batch.plan import ClaimError, Plan, Unit, make_plan
from gax_batch.progress import Say
from gax_batch.settled import SettledShards
from gax_batch.sources import (
    Settled,
    Source,
    open_band_files,
    open_frames,
    open_source,
    read_positions,
)
from gax_batch.stretches import PRESETS

# Raised whenever code changes what a cutout's row says, so that existing catalogs are redone.
RESULTS_VERSION = 6


def plan_run(
    settings: RunSettings,
    catalog: Catalog,
    fingerprint: str,
    folder: Path,
    say: Say,
    *,
    keep_index: bool = True,
) -> Plan:
    """List the input, compare it with the catalog, and say what is new, changed and unchanged.

    Args:
        settings: Of the run.
        catalog: What is cataloged already.
        fingerprint: `settings_fingerprint`.
        folder: An empty folder on a local disk, in which the plan keeps its members.
        say: Shows one line to the person who waits.
        keep_index: Whether the index of frames is written.

    Raises:
        UsageError: The user's mistake; nothing was written to the catalog.
    """
    open_survey = partial(open_input, settings, catalog.uri, say, keep_index=keep_index)
    settled = _settled_shards(settings, catalog, fingerprint)
    try:
        source = open_survey(settled=settled)
        plan = _compare(source, settings, catalog, fingerprint, folder / "settled", settled)
    except ClaimError:
        source = open_survey()
        plan = _compare(source, settings, catalog, fingerprint, folder / "all", None)
    if not plan.counts.listed:
        raise UsageError(f"{settings.input} holds no cutouts; check --input")
    ignored = f" ({source.ignored:,} other objects ignored)" if source.ignored else ""
    say(f"{plan.counts.listed:,} cutouts in {settings.input}{ignored}: {plan.counts}")
    if plan.units or plan.removed:
        _refuse_shrinking(settings, plan)
    return plan


def _settled_shards(settings: RunSettings, catalog: Catalog, fingerprint: str) -> SettledShards | None:
    # A table of positions, a limit or the wish to redo everything may touch any row.
    if settings.full or settings.limit is not None or settings.positions is not None:
        return None
    return SettledShards(catalog, fingerprint)


def _compare(
    source: Source,
    settings: RunSettings,
    catalog: Catalog,
    fingerprint: str,
    folder: Path,
    settled: SettledShards | None,
) -> Plan:
    folder.mkdir()
    return make_plan(
        source.list_members(),
        # The units that the listing passed over are known when the first batch is asked for.
        catalog.members(() if settled is None else settled.units),
        catalog.units(),
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
    settings: RunSettings, exclude: str, say: Say, *, keep_index: bool, settled: Settled | None = None
) -> Source:
    """Open the survey that the settings name; nothing below `exclude` is part of it.

    Args:
        settings: Of the run.
        exclude: A folder of our own.
        say: Shows one line to the person who waits.
        keep_index: Whether the index of frames is written.
        settled: As for `open_source`.

    Raises:
        UsageError: It is not there, or the settings do not fit together.
        TransientError: The store kept failing.
    """
    bands = PRESETS[settings.preset].bands
    if settings.frame_index is not None and not settings.frames:
        raise UsageError("--frame-index is the index of --frames: give both, or neither")
    if settings.band_files:
        if settings.frames or not bands:
            raise UsageError(
                "--band-files needs a --preset of several bands, and is for cutouts: --frames are always one "
                "file per band; change the one or leave out the other"
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
        raise UsageError("--frames needs --positions, and a --preset of several bands: give both")
    return open_frames(
        settings.input,
        settings.positions,
        bands=bands,
        limit=settings.limit,
        exclude=exclude,
        limits=settings.listing_limits,
        index_folder=settings.frame_index,
        keep_index=keep_index,
        say=say,
    )


def joined_positions(settings: RunSettings) -> Iterable[pa.Table]:
    """The positions that are joined to members by id; those of frames are members themselves."""
    return () if settings.positions is None or settings.frames else read_positions(settings.positions)


def settle_precision(settings: RunSettings, bundle: Bundle, catalog: Catalog) -> RunSettings:
    """Make the precision `auto` definite, before anything depends on it: all workers use the same.

    It is the one that most of the catalog was made with by otherwise equal settings, so that a night on
    another machine redoes nothing; where nothing is committed yet, that of most parts of interrupted runs. A
    new catalog gets bfloat16 where engines ask for GPUs, or share out a cluster of which nothing is known
    yet, and else this machine's faster one.
    """
    if settings.precision != "auto":
        return settings
    shared = settings.engine_cpus is None and cluster_address(settings.ray_address) is not None
    chosen = "bfloat16" if settings.engine_gpus or shared else faster_precision()
    candidates = [settings.model_copy(update={"precision": name}) for name in ("float32", "bfloat16")]
    prints = {s.precision: settings_fingerprint(s, bundle) for s in candidates}
    made = Counter(fingerprint for fingerprint, _ in catalog.units().values())
    if not any(made[fingerprint] for fingerprint in prints.values()):
        folders = {fingerprint: parts_folder(catalog.uri, fingerprint) for fingerprint in prints.values()}
        made.update({f: len(list_objects(folder, missing_ok=True)) for f, folder in folders.items()})
    return max(candidates, key=lambda s: (made[prints[s.precision]], s.precision == chosen))


def settings_fingerprint(settings: RunSettings, bundle: Bundle) -> str:
    """A digest of everything besides the cutouts that decides what a unit stores: rows, sums and draws."""
    decisive = {
        "results_version": RESULTS_VERSION,
        "bundle_id": bundle.bundle_id,
        "models": sorted(settings.models),
        "draws": settings.draws,
        "precision": settings.precision,
        "crop": settings.crop,
        "preset": settings.preset,
        "default_radius": settings.default_radius,
        "image_limits": asdict(settings.decoder.limits),
        "population_order": settings.population_order,
        "population_bins": settings.population_bins,
        "keep_draws": settings.keep_draws,
    }
    if settings.target_error is not None:
        decisive["target_error"] = settings.target_error
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def _refuse_shrinking(settings: RunSettings, plan: Plan) -> None:
    # A unit that is redone loses the members that are not listed, and a pruned one all of them.
    if settings.limit is not None and plan.counts.vanished:
        raise UsageError(
            f"--limit {settings.limit} leaves out {plan.counts.vanished:,} cutouts of {settings.catalog}; "
            "leave --limit away, or try it on a catalog of its own"
        )


def resources_of(settings: RunSettings, units: Sequence[Unit]) -> tuple[Resources, MemoryNeed]:
    """Return what a run of some units uses on this machine, and the memory that it needs.

    Units that are redone keep the size that they were made with, whatever the settings say.
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
        resources, units=len(units), unit_size=largest, draws=settings.draws, kept_draws=kept
    )
    return resources, need
