"""Execute a run: list, plan, check, resume, process, commit, record.

The module imports `pipeline`, and with it Ray, only if there are units to process.
"""

import logging
import secrets
import tempfile
from collections.abc import Callable, Container, Generator, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from gax_batch import storage
from gax_batch.catalog.parts import find_finished
from gax_batch.catalog.snapshots import Catalog
from gax_batch.cluster.progress import RunCounts, RunState, Stall
from gax_batch.cluster.retries import with_retries
from gax_batch.cluster.unit import Summarizer, UnitOptions, UnitResult, UnitTask
from gax_batch.errors import FatalError, GaxError, TransientError, UnknownCommitError
from gax_batch.models import Precision
from gax_batch.models.bundle import load_bundle, load_catalog_bundle
from gax_batch.models.domain import Alarm, Reference
from gax_batch.models.uncertainty import Calibration
from gax_batch.planning.plan import SAMPLE, Unit
from gax_batch.runner import record
from gax_batch.runner.display import Display, PlainLines
from gax_batch.runner.fingerprint import settings_fingerprint
from gax_batch.runner.monitor import Monitor
from gax_batch.runner.preparation import plan_run, report_changed_settings, resources_of, settle_precision
from gax_batch.runner.record import Clock, Outcome, Run
from gax_batch.runner.settings import RunSettings
from gax_batch.runner.tolerance import CHECKED_AFTER, Tolerance
from gax_batch.runner.up_to_date import report_nothing_to_do
from gax_batch.runner.webhook import ATTEMPTS, Webhook, summary_of
from gax_batch.sources import read_unit
from gax_batch.system.machine import MemoryMeter, Resources, available_bytes, require_memory
from gax_batch.system.signals import StoppedError, cancel_on_signal, drain_on_signal
from gax_batch.system.stderr import native_stderr_in

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The outcome of a run.

    Attributes:
        exit_code: 0 if the run is complete, 3 if units failed.
        run_id: Identifier of the run, None if there was nothing to do.
        version: Snapshot of the catalog.
    """

    exit_code: int
    run_id: str | None
    version: int | None


def run_survey(settings: RunSettings, display: Display | None = None) -> RunOutcome:
    """Bring a catalog up to date with its input.

    Args:
        settings: Settings of the run.
        display: Shows the events of the run. If None, they are logged.

    Raises:
        UsageError: The input or a setting is wrong; nothing was committed.
        FatalError: Nothing was committed. Finished units are kept, and the same run uses them.
        StoppedError: SIGINT or SIGTERM before the commit. Units in flight were finished and kept, unless a
            second signal arrived.
    """
    with cancel_on_signal():
        return _run_survey(settings, display or PlainLines())


def _run_survey(settings: RunSettings, display: Display) -> RunOutcome:
    clock = Clock()
    webhook = Webhook(settings.webhook)
    bundle = load_catalog_bundle(settings.bundle)
    # The engine checks this too, but only after Ray has started.
    Calibration.of_bundle(bundle.manifest["calibration"], settings.models)
    reference = Reference.of_bundle(bundle.manifest)
    catalog = Catalog(settings.catalog)
    settings = settle_precision(settings, bundle, catalog)
    fingerprint = settings_fingerprint(settings, bundle)
    report_changed_settings(settings, bundle, catalog, fingerprint)
    _require_memory(settings)
    with tempfile.TemporaryDirectory(prefix="gax-") as folder:
        plan = plan_run(settings, catalog, fingerprint, Path(folder))
        record.complete_lost_records(catalog.uri)
        if not (plan.units or plan.removed):
            report_nothing_to_do(settings.catalog, catalog.version, webhook)
            return RunOutcome(0, None, catalog.version)
        resources = _require_memory(settings, plan.units)
        storage.check_writable(catalog.uri)
        clock.lap("plan")
        started = datetime.now(UTC)
        run_id = f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        run = Run(
            run_id=run_id,
            started=started,
            catalog=catalog.uri,
            bundle_id=bundle.bundle_id,
            settings=settings.model_dump(mode="json"),
            settings_fingerprint=fingerprint,
            plan=plan,
            reference=reference,
        )
        return _process(run, settings, catalog, resources, clock, display, webhook)


def _require_memory(settings: RunSettings, units: Sequence[Unit] = ()) -> Resources:
    """Return the resources of a run of some units, and check the memory.

    Called without units before the listing, which may take hours, and again with the units of the plan.

    Raises:
        UsageError: The machine does not have enough memory.
    """
    resources, need = resources_of(settings, units)
    require_memory(need, available_bytes())
    return resources


def load_engine(
    threads: int,
    *,
    bundle: str | None,
    bundle_id: str,
    models: tuple[str, ...],
    draws: int,
    passes: int,
    target_error: float | None,
    precision: Precision,
) -> Summarizer:
    """Build an engine in the process that uses it. Imports TensorFlow.

    Raises:
        FatalError: The bundle is not the one of the run.
    """
    from gax_batch.models.engine import Engine

    loaded = load_bundle(bundle)
    if loaded.bundle_id != bundle_id:
        raise FatalError(f"this worker loaded the bundle {loaded.bundle_id}, but the run uses {bundle_id}")
    return Engine(
        loaded,
        models=models,
        draws=draws,
        passes=passes,
        target_error=target_error,
        precision=precision,
        threads=threads,
    )


def _process(
    run: Run,
    settings: RunSettings,
    catalog: Catalog,
    resources: Resources,
    clock: Clock,
    display: Display,
    webhook: Webhook,
) -> RunOutcome:
    counts = RunCounts()
    version: int | None = None
    error: BaseException | None = None
    with MemoryMeter() as meter:
        try:
            with record.kept_running(run, counts, clock):
                _infer(run, settings, catalog, resources, counts, clock, display)
            version, error = _commit(run, settings, catalog, counts)
            clock.lap("commit")
        except BaseException as caught:  # noqa: BLE001 (raised again below, once it is recorded)
            error = caught
    outcome = Outcome.of(version, failed_units=len(counts.failures), error=error)
    written = record.describe(run, counts, clock, outcome, peak_bytes=meter.peak_bytes)
    _conclude(written, outcome, settings, webhook)
    if version is None and error is not None:
        if isinstance(error, OSError):
            raise FatalError(f"{run.catalog} cannot be written: {error}; free space or check it") from error
        if isinstance(error, SystemExit):
            raise FatalError(f"a library ended the run: {error}") from error
        raise error
    return RunOutcome(outcome.exit_code, run.run_id, version)


def _infer(
    run: Run,
    settings: RunSettings,
    catalog: Catalog,
    resources: Resources,
    counts: RunCounts,
    clock: Clock,
    display: Display,
) -> None:
    """Write the parts of all units that are not stored yet, and check the fraction of rejects.

    Raises:
        UsageError: The rejects show that the input or a setting is wrong.
        FatalError: Every unit failed, or the run made no progress for too long.
    """
    # With --full, units are processed again although their parts exist.
    units = [] if settings.full else [(unit.unit_id, unit.fingerprint) for unit in run.plan.units]
    stored = find_finished(run.catalog, run.settings_fingerprint, units)
    finished = {unit_id: part for unit_id, part in stored.items() if not part.unread}
    bases = {unit_id: part.key for unit_id, part in stored.items() if part.unread}
    counts.reuse(list(finished.values()))
    if finished:
        logger.info(
            f"{len(finished):,} of {len(run.plan.units):,} units are stored already, by an interrupted "
            "run or for an earlier snapshot"
        )
    tolerance = Tolerance(run.catalog, settings.max_rejects, galaxies_before=catalog.galaxy_count())
    for part in finished.values():
        tolerance.add(part)
    tasks = _write_tasks(run, finished, bases)
    if sum(task.planned for task in tasks) > CHECKED_AFTER:
        # Cutouts that the storage does not return now are read again by the run.
        with suppress(TransientError, FatalError):
            tolerance.try_sample(read_unit(run.plan.sample(SAMPLE), settings.decoder))
    if tasks:
        _execute(run, settings, tasks, resources, counts, tolerance, clock, display)
    clock.lap("process")
    tolerance.end(counts)


def _commit(
    run: Run, settings: RunSettings, catalog: Catalog, counts: RunCounts
) -> tuple[int, BaseException | None]:
    """Commit the parts. Return the snapshot that contains them, and an error that followed the commit."""
    facts = {
        "bundle_id": run.bundle_id,
        "settings_fingerprint": run.settings_fingerprint,
        "status": record.FAILED_UNITS if counts.failures else record.COMPLETE,
    }
    try:
        # A signal takes effect only after the commit, with which the run ends anyway.
        with drain_on_signal(settings.grace):
            version = catalog.commit(
                counts.parts, run_id=run.run_id, metadata=facts, removed=run.plan.removed
            )
    except BaseException as error:
        try:
            entry = record.commit_of(run.catalog, run.run_id)
        except (GaxError, OSError) as unknown:
            raise UnknownCommitError(
                f"the commit of run {run.run_id} failed ({error}), and the catalog cannot be read "
                f"({unknown}): gax catalog log shows whether it exists"
            ) from error
        if entry is None:
            raise
        return entry.version, error
    return version, None


def _conclude(written: dict[str, Any], outcome: Outcome, settings: RunSettings, webhook: Webhook) -> None:
    """Store and log the outcome of a run. An error here is logged and does not change the outcome."""
    committed = outcome.version is not None
    try:
        with drain_on_signal(settings.grace) if committed else nullcontext():
            try:
                record.store(settings.catalog, written)
            except (GaxError, OSError) as error:
                logger.info(f"the record of run {written['run_id']} cannot be written: {error}")
            for line in [*(record.summary_lines(written) if committed else []), *outcome.messages]:
                logger.info(line)
            # A process that received a signal may be terminated soon.
            attempts = 1 if outcome.status == record.INTERRUPTED else ATTEMPTS
            webhook.send(summary_of(written), attempts=attempts)
    except StoppedError:
        if not committed:
            raise


def _write_tasks(run: Run, finished: Container[str], bases: Mapping[str, str]) -> list[UnitTask]:
    if all(unit.unit_id in finished for unit in run.plan.units):
        return []
    places = run.plan.write(run.catalog, run.run_id)
    return [
        UnitTask(
            file,
            row_group,
            unit.unit_id,
            unit.fingerprint,
            unit.members,
            unit.whole,
            unit.bytes or 0,
            bases.get(unit.unit_id),
        )
        for unit, (file, row_group) in zip(run.plan.units, places, strict=True)
        if unit.unit_id not in finished
    ]


def _execute(
    run: Run,
    settings: RunSettings,
    tasks: list[UnitTask],
    resources: Resources,
    counts: RunCounts,
    tolerance: Tolerance,
    clock: Clock,
    display: Display,
) -> None:
    from gax_batch.cluster import metrics, pipeline

    options, factory = _options_of(run, settings), _engine_of(run, settings)
    log = Path(tempfile.gettempdir()) / f"gax-{run.run_id}.log"
    with native_stderr_in(log), pipeline.ray_session(resources) as ray_folder:
        clock.lap("start")
        logger.info(f"Ray and TensorFlow write to {log}, Ray's workers to {ray_folder}/logs")
        planned = sum(task.planned for task in tasks)
        state = RunState(run.run_id, counts, planned=planned, units=len(tasks), draws=settings.draws)
        publisher = metrics.Metrics(run.run_id)
        stall = Stall(
            60 * settings.stall_minutes,
            60 * settings.give_up_minutes,
            max(settings.step_limit.of_unit(task.planned, task.bytes) for task in tasks),
        )

        def execute(units: Sequence[UnitTask]) -> Generator[UnitResult, None, None]:
            return pipeline.execute(
                units, factory, options, resources, settings.step_limit, monitor.on_sample
            )

        with (
            drain_on_signal(settings.grace) as stop,
            Monitor(
                state, display, stop, settings.grace, publisher, stall, Alarm(run.reference)
            ).on() as monitor,
            # Closed explicitly: a traceback would keep the generator alive after Ray has shut down.
            closing(with_retries(tasks, execute, lambda: stop.number is not None)) as results,
        ):
            for result in results:
                monitor.ended(result)
                if result.part is not None:
                    tolerance.add(result.part)
            if stop.number is not None and state.ended_units < len(tasks):
                raise StoppedError(stop.number)


def _options_of(run: Run, settings: RunSettings) -> UnitOptions:
    return UnitOptions(
        catalog=run.catalog,
        settings_fingerprint=run.settings_fingerprint,
        bundle_id=run.bundle_id,
        run_id=run.run_id,
        decoder=settings.decoder,
        grouping=settings.grouping,
        keep_draws=settings.keep_draws,
        reference=run.reference,
    )


def _engine_of(run: Run, settings: RunSettings) -> Callable[[int], Summarizer]:
    """Return a function that builds an engine in a worker from its number of threads."""
    return partial(
        load_engine,
        bundle=None if settings.bundle is None else storage.normalize_uri(settings.bundle),
        bundle_id=run.bundle_id,
        models=settings.models,
        draws=settings.draws,
        passes=settings.passes,
        target_error=settings.target_error,
        precision=settings.precision,
    )
