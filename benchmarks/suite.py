"""Shared parts of the benchmarks: work measured in turns, and rows with results and targets.

A benchmark is a file `bench_NAME.py` in this folder. Its first line describes what it measures, and its
function `run(lab)` yields rows. It runs in a process of its own, so that memory and caches of others do not
affect it. It runs once in each round through all benchmarks, so that its spread includes drifts of the
machine.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gax_batch.models.precision import faster, rates_of_machine
from gax_batch.system.cpus import cpu_model, vector_instructions

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"

Work = Callable[[], object]


class SkippedError(Exception):
    """A benchmark cannot run on this machine. The message is the reason."""


@dataclass(frozen=True, slots=True)
class Lab:
    """The place and thoroughness of a measurement.

    Attributes:
        folder: An empty folder that is removed afterwards.
        quick: Whether only to check that it works, with few galaxies and few turns.
    """

    folder: Path
    quick: bool

    def count(self, galaxies: int) -> int:
        """Return the number of galaxies to use instead of this many."""
        return max(galaxies // 20, 8) if self.quick else galaxies

    @property
    def turns(self) -> int:
        """Number of measurements in one round."""
        return 2 if self.quick else 3

    @property
    def few_turns(self) -> int:
        """Number of measurements in one round if each takes many seconds."""
        return 2

    def data(self, name: str) -> Path:
        """Return a folder of the real galaxies next to the checkout.

        Raises:
            SkippedError: They are not on this machine.
        """
        if not (SHARED / name).is_dir():
            raise SkippedError(f"the real galaxies of ../shared/data/{name} are not on this machine")
        return SHARED / name


@dataclass(frozen=True, slots=True)
class Sample:
    """One quantity, measured several times."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the values."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Half the range of all values, as a fraction of the median."""
        half = (max(self.values) - min(self.values)) / 2
        return half / self.median if self.median else 0.0

    def agrees(self, other: "Sample") -> bool:
        """Return whether the medians differ by at most the sum of both half ranges."""
        return abs(self.median - other.median) <= sum(s.spread * abs(s.median) for s in (self, other))


@dataclass(frozen=True, slots=True)
class Target:
    """A target: a limit of the value, or of its ratio to the peer's."""

    bound: float
    at_most: bool = False
    of_ratio: bool = False

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.bound:,.4g}{'x' if self.of_ratio else ''}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        what: The quantity that was measured.
        unit: Unit of the values.
        sample: The values.
        peer: The alternative with which it is compared.
        peer_sample: The peer's values, measured in turns with it.
        target: The target, if any.
    """

    what: str
    unit: str
    sample: Sample
    peer: str = ""
    peer_sample: Sample | None = None
    target: Target | None = None

    @property
    def ratios(self) -> Sample | None:
        """Ratio of the value to the peer's for each turn."""
        if self.peer_sample is None:
            return None
        pairs = zip(self.sample.values, self.peer_sample.values, strict=True)
        return Sample(tuple(mine / other for mine, other in pairs))

    @property
    def ratio(self) -> float | None:
        """Median over all turns of the ratio of the value to the peer's in the same turn."""
        return None if self.ratios is None else self.ratios.median

    @property
    def reached(self) -> bool | None:
        """Whether the target was reached; None without a target."""
        if self.target is None:
            return None
        value = self.ratio if self.target.of_ratio else self.sample.median
        if value is None:
            raise ValueError(f"{self.what}: a target of a ratio needs a peer")
        return value <= self.target.bound if self.target.at_most else value >= self.target.bound


def pooled(rounds: Sequence[Row]) -> Row:
    """Return one row with the values of several rounds."""

    def joined(samples: Iterable[Sample | None]) -> Sample:
        return Sample(tuple(value for sample in samples if sample is not None for value in sample.values))

    first = rounds[0]
    peer = None if first.peer_sample is None else joined(row.peer_sample for row in rounds)
    return replace(first, sample=joined(row.sample for row in rounds), peer_sample=peer)


def in_turns(
    works: Mapping[str, Work], *, turns: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Sample]:
    """Do each work once to warm up, then all in turns, so that other load on the machine affects all alike.

    Args:
        works: Functions to measure, by name.
        turns: Number of turns.
        clock: Returns seconds. `time.process_time` counts only this process.

    Returns:
        Seconds by name, one value per turn.
    """
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(turns):
        for name, work in works.items():
            start = clock()
            work()
            seconds[name].append(clock() - start)
    return {name: Sample(tuple(values)) for name, values in seconds.items()}


def rates(seconds: Mapping[str, Sample], amount: int) -> dict[str, Sample]:
    """Return amounts a second from the seconds of `in_turns`."""
    return {name: Sample(tuple(amount / s for s in sample.values)) for name, sample in seconds.items()}


def kind_of_machine() -> str:
    """Return the CPU with those of its instructions on which the speed of the models depends most."""
    rates = rates_of_machine()
    chosen = faster(rates)
    return f"{cpu_model()}, {os.cpu_count()} cores, {' and '.join(vector_instructions()) or 'AVX2'}, {chosen}"


def machine() -> dict[str, object]:
    """Return a description of this machine and the time."""
    return {
        "kind": kind_of_machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
