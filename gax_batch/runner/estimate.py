"""Predict the work, the resources and the duration of a run for `gax plan`. Writes nothing."""

import logging
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.catalog.snapshots import Catalog
from gax_batch.cluster.progress import duration
from gax_batch.imaging.cutout import IMAGE_SIDE
from gax_batch.models.bundle import load_catalog_bundle
from gax_batch.planning.plan import SAMPLE, Plan
from gax_batch.runner.cluster_size import cpu_node, gpu_node, lines, size
from gax_batch.runner.fingerprint import settings_fingerprint
from gax_batch.runner.preparation import plan_run, report_changed_settings, resources_of, settle_precision
from gax_batch.runner.run import load_engine
from gax_batch.runner.settings import RunSettings
from gax_batch.sources import read_unit
from gax_batch.system.machine import MIB, MemoryNeed, Resources, available_bytes
from gax_batch.system.stderr import quiet_native_stderr

logger = logging.getLogger(__name__)

_SHOWN_PROBLEMS = 5


@dataclass(frozen=True, slots=True)
class Rates:
    """Measured rates of a machine.

    Attributes:
        read: Cutouts that one core reads per second.
        infer: Cutouts that one engine classifies per second.
        start: Seconds until an engine has started.
    """

    read: float
    infer: float
    start: float

    def seconds(self, cutouts: int, resources: Resources) -> float:
        """Return the seconds that a run on this machine takes."""
        # Reading and inference overlap and share the cores. Each rate was measured while the other step was
        # idle, so their times add up.
        return self.start + cutouts / self.infer + cutouts / (self.read * resources.cpus)


@dataclass(frozen=True, slots=True)
class Budget:
    """Time and prices from which a cluster is sized.

    Attributes:
        hours: Hours that a run may take.
        core_price: Price of one core-hour, if known.
        gpu_price: Price of one GPU-hour, if known.
    """

    hours: float = 20.0
    core_price: float | None = None
    gpu_price: float | None = None


def forecast(settings: RunSettings, *, calibrate: bool = True, budget: Budget | None = None) -> int:
    """Log what a run would do, the memory that it needs, and its duration.

    Args:
        settings: Settings of the run.
        calibrate: Whether to read and classify a few cutouts to predict the time.
        budget: Hours and prices from which a cluster is sized.

    Returns:
        The exit code: 0, or 2 if the run would be refused because memory is short.

    Raises:
        UsageError: The input or a setting is wrong.
        TransientError: The store kept failing.
        FatalError: The storage refused the sample.
    """
    bundle = load_catalog_bundle(settings.bundle)
    catalog = Catalog(settings.catalog)
    settings = settle_precision(settings, bundle, catalog)
    fingerprint = settings_fingerprint(settings, bundle)
    report_changed_settings(settings, bundle, catalog, fingerprint)
    with tempfile.TemporaryDirectory(prefix="gax-") as folder:
        plan = plan_run(settings, catalog, fingerprint, Path(folder), keep_index=False)
        resources, need = resources_of(settings, plan.units)
        for line in _plan_lines(plan):
            logger.info(line)
        if not plan.units:
            return 0
        fits = need.total <= available_bytes()
        passes = settings.most_passes
        logger.info(f"{settings.draws} draws of {passes} passes, convolutions in {settings.precision}")
        logger.info(_memory_line(need, fits=fits))
        rates = None
        if calibrate:
            sample = read_sample(plan, settings)
            for line in _problem_lines(sample.cutouts):
                logger.info(line)
            rates = measure(sample, settings, bundle.bundle_id, resources)
            seconds = rates.seconds(plan.members, resources)
            logger.info(
                f"time: about {duration(seconds)} here: one core reads {rates.read:,.0f} cutouts/s, "
                f"the models classify {rates.infer:,.1f}/s, start {rates.start:.0f} s (from {SAMPLE} cutouts)"
            )
        for line in _cluster_lines(plan, settings, resources, rates, budget or Budget()):
            logger.info(line)
    return 0 if fits else 2


def _cluster_lines(
    plan: Plan, settings: RunSettings, resources: Resources, rates: Rates | None, budget: Budget
) -> list[str]:
    """Return the size of a cluster for the survey, from the rates of this machine if they were measured."""
    gpus = settings.engine_gpus or 0
    if gpus and rates is None:
        return ["on a cluster: no GPU has been measured; run gax plan on a node that has one"]
    if gpus and rates is not None:
        node = gpu_node(settings.engine_cpus or 2, gpus, infer_rate=rates.infer, read_rate=rates.read)
        source = "rates of this machine"
    elif rates is not None:
        node = cpu_node(settings.engine_cpus or 6, 1 / (resources.cpus / rates.infer + 1 / rates.read))
        source = "rates of this machine, proportional to the cores"
    else:
        node = cpu_node(settings.engine_cpus or 6)
        source = "rates of docs/benchmarks.md, proportional to the cores"
    need = size(
        plan.members,
        node,
        hours=budget.hours,
        unit_size=max(unit.members for unit in plan.units),
        engines=0 if settings.workers == "auto" else settings.workers,
    )
    return lines(need, core_price=budget.core_price, gpu_price=budget.gpu_price, source=source)


@dataclass(frozen=True, slots=True)
class TimedCutouts:
    """A few cutouts of a plan.

    Attributes:
        cutouts: Table with `CUTOUT_SCHEMA`.
        seconds: CPU seconds in which they were read.
    """

    cutouts: pa.Table
    seconds: float


def read_sample(plan: Plan, settings: RunSettings) -> TimedCutouts:
    """Read some cutouts of a plan as a run would."""
    members = plan.sample(SAMPLE)
    start = time.process_time()
    return TimedCutouts(read_unit(members, settings.decoder), time.process_time() - start)


def measure(sample: TimedCutouts, settings: RunSettings, bundle_id: str, resources: Resources) -> Rates:
    """Measure the rates of this machine with a sample.

    The first cutout is classified in advance, so that compilation does not count.

    Args:
        sample: Cutouts, and the time in which they were read.
        settings: Settings of the run.
        bundle_id: Identifier of the bundle that the engine must load.
        resources: Resources of the run, with the CPUs of the engine.
    """
    good = [np.frombuffer(c, np.uint8) for c in sample.cutouts["cutout"].to_pylist() if c is not None]
    images = np.stack(good or [np.zeros(IMAGE_SIDE * IMAGE_SIDE * 3, np.uint8)])
    images = images.reshape(-1, IMAGE_SIDE, IMAGE_SIDE, 3)
    start = time.monotonic()
    with quiet_native_stderr():
        engine = load_engine(
            resources.cpus,
            bundle=settings.bundle,
            bundle_id=bundle_id,
            models=settings.models,
            draws=settings.draws,
            passes=settings.passes,
            target_error=settings.target_error,
            precision=settings.precision,
        )
        engine.summarize(images[:1])
        begin = time.monotonic()
        engine.summarize(images)
    seconds = max(time.monotonic() - begin, 1e-9)
    return Rates(len(sample.cutouts) / max(sample.seconds, 1e-9), len(images) / seconds, begin - start)


def _plan_lines(plan: Plan) -> list[str]:
    reasons: Counter[str] = Counter()
    members: Counter[str] = Counter()
    for unit in plan.units:
        reasons[unit.reason] += 1
        members[unit.reason] += unit.members
    lines = [f"{plan.members:,} cutouts to process in {len(plan.units):,} units"]
    lines += [
        f"  {reason}: {members[reason]:,} cutouts in {n:,} units" for reason, n in reasons.most_common()
    ]
    sizes = [unit.bytes for unit in plan.units]
    known = [size for size in sizes if size is not None]
    if known:
        more = "" if len(known) == len(sizes) else " and more"
        lines.append(f"to read: {sum(known) / MIB:,.1f} MiB{more}")
    lines += [f"  rejected already {n:,}: {reason}" for reason, n in sorted(plan.rejects.items())]
    return lines


def _memory_line(need: MemoryNeed, *, fits: bool) -> str:
    there = f"{available_bytes() / MIB:,.0f} MiB are available"
    return f"memory: about {need}; {there}" + ("" if fits else ", not enough: the run would be refused")


def _problem_lines(cutouts: pa.Table) -> list[str]:
    bad = cutouts.filter(pc.is_valid(cutouts["reason"]))
    if not len(bad):
        return [f"a sample of {len(cutouts):,} cutouts has no problem"]
    return [f"a sample of {len(cutouts):,} cutouts has {len(bad):,} that would be rejected:"] + [
        f"  {row['reason']}: {row['source_uri']} ({row['detail']})"
        for row in bad.slice(0, _SHOWN_PROBLEMS).to_pylist()
    ]
