"""The driver's cost of a unit, and the throughput with a growing number of engines that wait like a GPU.

The units have only cutouts that planning rejected. Nothing is read, so that the work is that of the pipeline
alone. Each engine waits as long as a GPU would need for a unit.
"""

import functools
import gc
import os
import tempfile
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from fake_engine import FakeEngine
from listings import listing, member

from benchmarks.suite import Lab, Row, Sample, Target
from benchmarks.usage import KINDS, Usage
from gax_batch.cluster.pipeline import execute, ray_session
from gax_batch.cluster.unit import UnitOptions, UnitTask
from gax_batch.cluster.unit_tracker import StepLimit
from gax_batch.imaging.decoding import Decoder
from gax_batch.planning.plan import make_plan
from gax_batch.system.machine import MIB, UNIT_BYTES, Resources

ROWS = 16
CPUS = 2
STORE_BYTES = 512 * MIB
# 4,096 galaxies at 2,000 a second.
UNIT_SECONDS = 2.0
ENGINES = (1, 4, 16, 64)
UNITS_EACH = 12
# Range of measured units of each engine: after all starts, before the first engine runs out of work.
MEASURED = (6, 10)
# Numbers of units of two runs with the same engines. Their difference gives the cost of a unit.
FEW, MANY = 60, 300
# Number of times that the driver's threads are sampled at the end, which costs both runs the same
# milliseconds. After the last units the scheduling thread may have ended.
LOOKS = 20
PACKAGES = ("gax_batch", "ray", "pyarrow")
WHOLE = "CPU a unit"
SCHEDULING = "of it Ray Data's scheduling loop"
ITERATING = "of it the main thread: Ray Data's iterator, and gax_batch"
NATIVE = "of it Ray's native threads"
OTHERS = "of it other threads of Python"


def waiting_engine(_: int, *, seconds: float) -> FakeEngine:
    """Return an engine that waits. It is at the top level, so that a worker can import it."""
    return FakeEngine(seconds=seconds)


def planned(folder: Path, units: int) -> list[UnitTask]:
    """Return units of cutouts whose ids are invalid."""
    rows = listing([member(f"bad\n{number}") for number in range(units * ROWS)])
    plan = make_plan([rows], [], {}, settings_fingerprint="s", unit_size=ROWS, folder=folder / "plan")
    places = plan.write(str(folder / "catalog"), "run-1")
    return [
        UnitTask(file, group, unit.unit_id, unit.fingerprint, unit.members, unit.whole)
        for unit, (file, group) in zip(plan.units, places, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Outcome:
    """When each unit ended, and the driver's CPU seconds by kind of thread and its bytes at the end.

    `cpu` has the CPU seconds of all processes by their kind when each unit ended, if they are sampled.
    """

    ends: list[float]
    usage: dict[str, float]
    memory: int
    cpu: list[Counter[str]]


def cpu_by_thread() -> Counter[str]:
    """Return the CPU seconds so far of this process and of its living threads."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    process = psutil.Process()
    seconds = Counter({WHOLE: sum(process.cpu_times()[:2])})
    for thread in process.threads():
        name = names.get(thread.id)
        kind = NATIVE if name is None else ITERATING if name == "MainThread" else OTHERS
        if name is not None and name.startswith("StreamingExecutor"):
            kind = SCHEDULING
        seconds[kind] += thread.user_time + thread.system_time
    return seconds


def ends_of(folder: Path, units: int, engines: int, seconds: float, watch: Usage | None = None) -> Outcome:
    """Run a number of units."""
    (folder / "plan").mkdir(parents=True)
    tasks = planned(folder, units)
    options = UnitOptions(str(folder / "catalog"), "s", "bundle", "run-1", Decoder())
    factory = functools.partial(waiting_engine, seconds=seconds)
    resources = Resources(CPUS, engines, STORE_BYTES)
    before, ends, cpu = cpu_by_thread(), [], []
    after = before
    for result in execute(tasks, factory, options, resources, StepLimit(seconds=600.0), lambda _: False):
        ends += [time.monotonic()] if result.part is not None else []
        cpu += [watch.seconds()] if watch is not None else []
        if len(ends) > units - LOOKS:
            after = after | cpu_by_thread()
    assert len(ends) == units
    usage = {kind: after[kind] - before[kind] for kind in after}
    return Outcome(ends, usage, psutil.Process().memory_info().rss, cpu)


def cost(lab: Lab) -> Iterator[Row]:
    """Yield rows of the driver's cost of one more unit."""
    few, many = lab.count(FEW), lab.count(MANY)
    milliseconds: dict[str, list[float]] = {k: [] for k in (WHOLE, SCHEDULING, ITERATING, NATIVE, OTHERS)}
    kilobytes, more = [], many - few
    for _ in range(lab.few_turns):
        with tempfile.TemporaryDirectory(dir=lab.folder) as place:
            first = ends_of(Path(place, "few"), few, 1, 0.0)
            second = ends_of(Path(place, "many"), many, 1, 0.0)
        for kind, values in milliseconds.items():
            values.append((second.usage.get(kind, 0.0) - first.usage.get(kind, 0.0)) / more * 1e3)
        kilobytes.append(max(0.0, second.memory - first.memory) / more / 1e3)
    for kind, values in milliseconds.items():
        target = Target(1, at_most=True) if kind == WHOLE else None
        yield Row(f"driver, {kind}", "ms", Sample(tuple(values)), target=target)
    yield Row(
        "driver, memory a unit", "kB", Sample(tuple(kilobytes)), target=Target(UNIT_BYTES / 1e3, at_most=True)
    )


def allocated() -> Counter[str]:
    """Return the bytes that Python code holds, by the package that allocated them. Needs `tracemalloc`."""
    gc.collect()
    found: Counter[str] = Counter()
    for trace in tracemalloc.take_snapshot().traces:
        path = trace.traceback[-1].filename
        found[next((name for name in PACKAGES if f"/{name}/" in path), "other")] += trace.size
    return found


def memory(lab: Lab) -> Iterator[Row]:
    """Yield rows of the memory that Python code holds per unit, by package, from separate runs."""
    few, many = lab.count(FEW), lab.count(MANY)
    held = []
    tracemalloc.start()
    for units in (few, many):
        before = allocated()
        with tempfile.TemporaryDirectory(dir=lab.folder) as place:
            outcome = ends_of(Path(place, "run"), units, 1, 0.0)
            after = allocated()
        held.append({name: after[name] - before[name] for name in (*PACKAGES, "other")})
        del outcome
    tracemalloc.stop()
    for name in held[0]:
        kilobytes = (held[1][name] - held[0][name]) / (many - few) / 1e3
        yield Row(f"of it held by Python code of {name}", "kB", Sample((kilobytes,)))


def growth(lab: Lab) -> Iterator[Row]:
    """Yield rows of units a second by number of engines, relative to engines alone, and CPU time per unit."""
    for engines in ENGINES[:2] if lab.quick else ENGINES:
        with tempfile.TemporaryDirectory(dir=lab.folder) as place, Usage(os.getpid()) as watch:
            outcome = ends_of(Path(place), UNITS_EACH * engines, engines, UNIT_SECONDS, watch)
        # Use whole rounds: engines finish their units in bursts.
        start, stop = (engines * each for each in MEASURED)
        seconds = outcome.ends[stop] - outcome.ends[start]
        alone = Sample((engines / UNIT_SECONDS,))
        what = f"units by {engines} engines that wait"
        yield Row(what, "1/s", Sample(((stop - start) / seconds,)), "waiting alone", alone)
        for kind in KINDS:
            spent = outcome.cpu[stop][kind] - outcome.cpu[start][kind]
            share = Sample((spent / (stop - start) * 1e3,))
            yield Row(f"of it CPU, {kind}", "ms a unit", share)


def run(lab: Lab) -> Iterator[Row]:
    with ray_session(Resources(CPUS, None, STORE_BYTES)):
        yield from cost(lab)
        yield from memory(lab)
        yield from growth(lab)
