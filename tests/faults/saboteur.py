"""Faults as they befall a worker: real signals, crashes, exhausted memory and endless loops.

Workers import this by name. What is to happen stands in the folder that `GAX_FAULTS` names, and every fault
leaves a line there before it strikes; so that it strikes as often as it is told, whoever dies.
"""

import ctypes
import json
import os
import re
import select
import signal
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
from fake_engine import FakeEngine

from gax_batch.cluster import workers
from gax_batch.cluster.unit import UnitOptions, UnitResult
from gax_batch.cluster.workers import Steps
from gax_batch.imaging.decoding import Decoder
from gax_batch.models.uncertainty import Summary

MARK = b"poison:"
"""Before the name of a `WAYS` in the comment of a poisonous JPEG."""
MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")
GROUP_BYTES = 64 << 20
BALLAST_BYTES = 20 << 20


def folder() -> Path:
    """Where the faults are planned and noted."""
    return Path(os.environ["GAX_FAULTS"])


def note(fault: str) -> None:
    """Leave a line of a fault that is about to strike."""
    with (folder() / "strikes").open("a") as file:
        file.write(f"{time.time()} {fault}\n")


def due(fault: str, key: str = "") -> bool:
    """Whether a planned fault is to strike here: once for each key, so often in all; notes it if so."""
    times = json.loads((folder() / "plan").read_text()).get(fault, 0)
    name = fault.replace(" ", "-")
    if not times or not (key == "" or claim(f"{name}-of-{key}")):
        return False
    if not any(claim(f"{name}-{number}") for number in range(times)):
        return False
    note(fault)
    return True


def claim(name: str) -> bool:
    """Whether this is the first process to do what has that name."""
    try:
        (folder() / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def kill() -> None:
    """End as a process does whose machine takes it away."""
    os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    """Read where no memory is."""
    ctypes.string_at(0)


def exhaust_memory() -> None:
    """Be killed by the kernel, for more memory than a control group of this process's own has."""
    group = MEMORY_GROUPS / f"gax-faults-{os.getpid()}"
    group.mkdir()
    (group / "memory.limit_in_bytes").write_text(str(GROUP_BYTES))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    np.ones(4 * GROUP_BYTES, np.uint8)


def remove_memory_groups() -> None:
    """Clear away what `exhaust_memory` leaves, whose processes are gone."""
    for group in MEMORY_GROUPS.glob("gax-faults-*"):
        group.rmdir()


def loop() -> None:
    """Never come back from native code that holds the interpreter's lock."""
    re.match(r"(a|a)*$", "a" * 64 + "b")


def raise_surprise() -> None:
    """Raise what no step may raise."""
    raise RuntimeError("the driver of the device is gone")


WAYS: dict[str, Callable[[], None]] = {
    "crash": crash,
    "memory": exhaust_memory,
    "loop": loop,
    "surprise": raise_surprise,
}


def can_exhaust_memory() -> bool:
    """Whether this machine lets us make control groups of memory."""
    return os.access(MEMORY_GROUPS, os.W_OK) and (MEMORY_GROUPS / "memory.limit_in_bytes").exists()


_decode = Decoder.decode
_reading: list[str] = []


def decode(self: Decoder, found: Any) -> Any:
    """Decode, and die of what is poisonous in decoding, or where that is planned."""
    way = re.search(MARK + rb"(\w+)", found[:300]) if isinstance(found, bytes) else None
    if way:
        note(f"poison: {way[1].decode()} in decoding")
        WAYS[way[1].decode()]()
    done = _decode(self, found)
    if _reading and due("SIGKILL of a decoding task", _reading[-1]):
        kill()
    return done


def read_block(pointer: pa.Table, options: UnitOptions, steps: Steps) -> pa.Table:
    """`gax_batch.cluster.workers.read_block`, and what befalls it."""
    Decoder.decode = decode  # type: ignore[method-assign]
    _reading.append(pointer["unit_id"][0].as_py())
    if due("SIGKILL of a reading task", _reading[-1]):
        kill()
    return workers.read_block(pointer, options, steps)


class SingleUnitActor(workers.SingleUnitActor):
    """`gax_batch.cluster.workers.SingleUnitActor`, in which poison is as poisonous."""

    def attempt(self, *arguments: Any) -> UnitResult:
        Decoder.decode = decode  # type: ignore[method-assign]
        return super().attempt(*arguments)


def write_block(block: pa.Table, options: UnitOptions, steps: Steps) -> pa.Table:
    """`gax_batch.cluster.workers.write_block`, and what befalls it."""
    unit_id = UnitResult.from_arrow(block).state.unit_id
    if due("SIGKILL of a write task before its part is stored", unit_id):
        kill()
    done = workers.write_block(block, options, steps)
    if due("SIGKILL of a write task after its part is stored", unit_id):
        kill()
    return done


class MortalEngine(FakeEngine):
    """Dies of cutouts that are red all over, and where that is planned."""

    def __init__(self, log: str | None, seconds: float) -> None:
        super().__init__(log)
        self._pause = seconds

    def summarize(self, images: npt.NDArray[np.uint8]) -> Summary:
        red = (images[:, :, :, 0] > 200).all(axis=(1, 2)) & (images[:, :, :, 1:] < 60).all(axis=(1, 2, 3))
        if red.any():
            note("poison: crash in the models")
            crash()
        if len(images) and due("SIGKILL of an engine within a unit", str(zlib.crc32(images.tobytes()))):
            kill()
        # A library that fakes the clock does not let Python's own sleep pass.
        select.select([], [], [], self._pause)
        return super().summarize(images)


def mortal_engine(threads: int, *, log: str | None = None, seconds: float = 0.0, **_: object) -> FakeEngine:
    """An engine factory, with the signature of `gax_batch.runner.run.load_engine`, and what befalls it."""
    if due("SIGKILL of an engine that loads"):
        kill()
    if due("an engine that never loads"):
        crash()
    return MortalEngine(log, seconds)


def with_full_store(execute: Callable[..., Any], count: int) -> Callable[..., Any]:
    """Run while the object store is full of other things, which must be spilled to the disk."""

    def wrapped(*arguments: Any) -> Any:
        held = [ray.put(np.full(BALLAST_BYTES, number, np.uint8)) for number in range(count)]
        yield from execute(*arguments)
        # Of the Ray that runs already: init only returns its context.
        folder = Path(ray.init(ignore_reinit_error=True).address_info["session_dir"])
        spilled = [path for path in folder.glob("ray_spilled_objects*/*") if path.stat().st_size]
        note(f"object store full, {len(spilled)} files spilled")
        assert all(ray.get(reference)[-1] == number for number, reference in enumerate(held))

    return wrapped
