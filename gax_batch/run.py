"""A whole run, step by step: list, plan, check, resume, execute, commit, record.

The only module that imports `pipeline` (and so Ray), and only when there is something to do.
"""

import secrets
import tempfile
from collections.abc import Container, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from gax_batch import record, storage
from gax_batch.catalog.snapshots import Catalog
from gax_batch.catalog.writer import find_finished
from gax_batch.config import RunSettings
from gax_batch.display import Display, PlainLines
from gax_batch.errors import FatalError, GaxError, UsageError
from gax_batch.interrupt import StoppedError, finishes_first, stops_at_once
from gax_batch.machine import (
    MemoryMeter,
    Resources,
    available_bytes,
    require_memory,
)
from gax_batch.models import Precision
from gax_batch.models.bundle import load_bundle, load_catalog_bundle
from gax_batch.models.domain import Alarm, Reference
from gax_batch.preparation import plan_run, resources_of, settings_fingerprint, settle_precision
from gax_batch.progress import RunState, Say, Stall, Tally
from gax_batch.quiet import native_stderr_in
from gax_batch.record import Clock, Run
from gax_batch.retries import with_retries
from gax_batch.uncertainty import Calibration
from gax_batch.unit import Engine, UnitOptions, UnitResult, UnitTask
from gax_batch.watch import Watch
from gax_batch.webhook import ATTEMPTS, Webhook, summary_of

# A small night with some bad cutouts is no wrong configuration.
_FEW_REJECTS = 10


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended: 0 complete, 3 with failed units; `version` is the catalog's snapshot."""

    exit_code: int
    run_id: str | None
    version: int | None


def run_survey(settings: RunSettings, say: Say, display: Display | None = None) -> RunOutcome:
    """Bring a catalog up to date with its input.

    Args:
        settings: what to do.
        say: shows one line to the person who waits.
        display: shows how the run stands; plain lines where none is given.

    Raises:
        UsageError: the user's mistake; nothing was written.
        FatalError: nothing was committed; finished units are kept, and the same run uses them.
        StoppedError: SIGINT or SIGTERM; units in flight were finished and kept, or a second one came.
    """
    with stops_at_once():
        return _run_survey(settings, say, display or PlainLines(say))


def _run_survey(settings: RunSettings, say: Say, display: Display) -> RunOutcome:
    clock = Clock()
    webhook = Webhook(settings.webhook)
    bundle = load_catalog_bundle(settings.bundle)
    # The engine would find out too, but only once Ray has started.
    Calibration.of_bundle(bundle.manifest["calibration"], settings.models)
    reference = Reference.of_bundle(bundle.manifest)
    catalog = Catalog(settings.catalog)
    settings = settle_precision(settings, bundle, catalog)
    fingerprint = settings_fingerprint(settings, bundle)
    with tempfile.TemporaryDirectory(prefix="gax-") as folder:
        plan = plan_run(settings, catalog, fingerprint, Path(folder), say)
        if not (plan.units or plan.removed):
            say(f"nothing to do: 0 units; {settings.catalog} is up to date at snapshot {catalog.version}")
            webhook.send(_nothing_to_do(settings.catalog, catalog.version), say)
            return RunOutcome(0, None, catalog.version)
        resources, need = resources_of(settings, plan.units)
        require_memory(need, available_bytes())
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


def load_engine(
    threads: int,
    *,
    bundle: str | None,
    bundle_id: str,
    models: tuple[str, ...],
    draws: int,
    target_error: float | None,
    precision: Precision,
) -> Engine:
    """Build the engine in the process that will use it; this imports TensorFlow."""
    from gax_batch.inference import Engine as TensorFlowEngine

    loaded = load_bundle(bundle)
    if loaded.bundle_id != bundle_id:
        raise FatalError(f"this worker finds the bundle {loaded.bundle_id}, but the run is of {bundle_id}")
    return TensorFlowEngine(
        loaded, models=models, draws=draws, target_error=target_error, precision=precision, threads=threads
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
    tally, say = Tally(), display.say
    with _recorded_whatever_happens(run, tally, clock, say, webhook), MemoryMeter() as meter:
        # What is forced is done again, although its parts are there.
        units = [] if settings.full else [(unit.unit_id, unit.fingerprint) for unit in run.plan.units]
        stored = find_finished(run.catalog, run.settings_fingerprint, units)
        finished = {unit_id: part for unit_id, part in stored.items() if not part.unread}
        tally.reuse(list(finished.values()))
        if finished:
            say(f"{len(finished):,} of {len(run.plan.units):,} units were finished by an interrupted run")
        bases = {unit_id: part.key for unit_id, part in stored.items() if part.unread}
        tasks = _write_tasks(run, finished, bases)
        if tasks:
            _execute(run, settings, tasks, resources, tally, clock, display)
        clock.lap("process")
        _refuse_rejects(tally, settings.max_rejects)
        # A signal waits for the commit, which is the run's end.
        with finishes_first(settings.grace):
            version = catalog.commit(
                tally.parts,
                run_id=run.run_id,
                metadata={"bundle_id": run.bundle_id, "settings_fingerprint": run.settings_fingerprint},
                removed=run.plan.removed,
            )
        clock.lap("commit")
    status = "failed units" if tally.failures else "complete"
    written = record.write(run, tally, clock, status=status, version=version, peak_bytes=meter.peak_bytes)
    for line in record.summary_lines(written):
        say(line)
    webhook.send(summary_of(written), say)
    return RunOutcome(3 if tally.failures else 0, run.run_id, version)


def _refuse_rejects(tally: Tally, threshold: float) -> None:
    """Stop before the commit of a run that rejects nearly everything: its input or settings are wrong."""
    planned = tally.rows + tally.rejects
    if tally.rejects <= max(threshold * planned, _FEW_REJECTS):
        return
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in tally.rejects_by_reason.most_common(3))
    raise UsageError(
        f"{tally.rejects:,} of {planned:,} cutouts were rejected ({reasons}), more than --max-rejects "
        f"{threshold:.3g}; check the input and the settings, or allow more: the same command then commits "
        "what is finished"
    )


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
    tally: Tally,
    clock: Clock,
    display: Display,
) -> None:
    from gax_batch import pipeline, telemetry

    options = UnitOptions(
        catalog=run.catalog,
        settings_fingerprint=run.settings_fingerprint,
        bundle_id=run.bundle_id,
        run_id=run.run_id,
        decoder=settings.decoder,
        grouping=settings.grouping,
        keep_draws=settings.keep_draws,
        reference=run.reference,
    )
    factory = partial(
        load_engine,
        bundle=None if settings.bundle is None else storage.normalize_uri(settings.bundle),
        bundle_id=run.bundle_id,
        models=settings.models,
        draws=settings.draws,
        target_error=settings.target_error,
        precision=settings.precision,
    )
    log = Path(tempfile.gettempdir()) / f"gax-{run.run_id}.log"
    with native_stderr_in(log), pipeline.ray_session(resources) as ray_folder:
        clock.lap("start")
        display.say(f"Ray and TensorFlow write to {log}, Ray's workers to {ray_folder}/logs")
        planned = sum(task.planned for task in tasks)
        state = RunState(run.run_id, tally, planned=planned, units=len(tasks), draws=settings.draws)
        metrics, stall = telemetry.Metrics(run.run_id), Stall(60 * settings.stall_minutes)

        def execute(units: Sequence[UnitTask]) -> Generator[UnitResult, None, None]:
            return pipeline.execute(
                units, factory, options, resources, settings.step_limit, watch.see, display.say
            )

        with (
            finishes_first(settings.grace) as stop,
            Watch(state, display, stop, settings.grace, metrics, stall, Alarm(run.reference)).on() as watch,
            # Closed here, not when a traceback lets it go: it must not outlive Ray.
            closing(with_retries(tasks, execute, lambda: stop.number is not None, display.say)) as results,
        ):
            for result in results:
                watch.ended(result)
            if stop.number is not None and state.ended_units < len(tasks):
                raise StoppedError(stop.number)


@contextmanager
def _recorded_whatever_happens(
    run: Run, tally: Tally, clock: Clock, say: Say, webhook: Webhook
) -> Iterator[None]:
    try:
        record.write(run, tally, clock, status="running")
        yield
    except BaseException as error:
        status = "interrupted" if isinstance(error, StoppedError | KeyboardInterrupt) else "failed"
        say("nothing was committed; finished units are kept, and the same command goes on from there")
        # Where the catalog itself is what fails, the record of it may not be written either.
        with suppress(GaxError, OSError):
            cause = str(error) or type(error).__name__
            written = record.write(run, tally, clock, status=status, cause=cause)
            # Who was told to stop has little time left.
            webhook.send(summary_of(written), say, attempts=ATTEMPTS if status == "failed" else 1)
        if isinstance(error, OSError):
            raise FatalError(f"{run.catalog} cannot be written: {error}; free space or check it") from error
        raise


def _nothing_to_do(catalog: str, version: int | None) -> dict[str, object]:
    text = f"gax run: nothing to do; {catalog} is up to date at snapshot {version}"
    return {"text": text, "catalog": catalog, "status": "nothing to do", "snapshot": version}
