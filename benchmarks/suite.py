"""What every benchmark shares: work done in turns, and rows that tell what came out beside what was asked.

A benchmark is a file `bench_NAME.py` in this folder. Its first line says what it measures; its function
`run(lab)` yields rows. It runs in a process of its own, so that neither memory nor caches of another show,
and once in each round through all of them, so that its spread holds how the machine drifts meanwhile.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"

Work = Callable[[], object]


class SkippedError(Exception):
    """A benchmark that cannot run on this machine, and why."""


@dataclass(frozen=True, slots=True)
class Lab:
    """Where and how thoroughly to measure.

    Attributes:
        folder: An empty folder that is removed afterwards.
        quick: Only to see that it works: few galaxies, few turns.
    """

    folder: Path
    quick: bool

    def count(self, galaxies: int) -> int:
        """Return how many galaxies to take of so many."""
        return max(galaxies // 20, 8) if self.quick else galaxies

    @property
    def turns(self) -> int:
        """How often everything is measured in one round."""
        return 2 if self.quick else 3

    @property
    def few_turns(self) -> int:
        """How often, where a turn takes many seconds."""
        return 2

    def data(self, name: str) -> Path:
        """Return a folder of the real galaxies beside the checkout.

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
        """The value in the middle."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Half the range of all values, as a fraction of the median."""
        half = (max(self.values) - min(self.values)) / 2
        return half / self.median if self.median else 0.0

    def agrees(self, other: "Sample") -> bool:
        """Return whether the medians lie no further apart than both half ranges together."""
        return abs(self.median - other.median) <= sum(s.spread * abs(s.median) for s in (self, other))


@dataclass(frozen=True, slots=True)
class Target:
    """What was asked: a bound of the value itself, or of its ratio to the peer's."""

    bound: float
    at_most: bool = False
    of_ratio: bool = False

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.bound:,.4g}{'x' if self.of_ratio else ''}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        what: Was measured.
        unit: Of the values.
        sample: The values.
        peer: What it is compared with.
        peer_sample: The peer's values, taken in turns with it.
        target: What was asked, if anything was.
    """

    what: str
    unit: str
    sample: Sample
    peer: str = ""
    peer_sample: Sample | None = None
    target: Target | None = None

    @property
    def ratios(self) -> Sample | None:
        """Of each turn the value by the peer's."""
        if self.peer_sample is None:
            return None
        pairs = zip(self.sample.values, self.peer_sample.values, strict=True)
        return Sample(tuple(mine / other for mine, other in pairs))

    @property
    def ratio(self) -> float | None:
        """The median over all turns of the value by the peer's of the same turn."""
        return None if self.ratios is None else self.ratios.median

    @property
    def reached(self) -> bool | None:
        """Whether the target was; None where there is none."""
        if self.target is None:
            return None
        value = self.ratio if self.target.of_ratio else self.sample.median
        if value is None:
            raise ValueError(f"{self.what}: a target of a ratio needs a peer")
        return value <= self.target.bound if self.target.at_most else value >= self.target.bound


def pooled(rounds: Sequence[Row]) -> Row:
    """Return one row of what several rounds measured."""

    def joined(samples: Iterable[Sample | None]) -> Sample:
        return Sample(tuple(value for sample in samples if sample is not None for value in sample.values))

    first = rounds[0]
    peer = None if first.peer_sample is None else joined(row.peer_sample for row in rounds)
    return replace(first, sample=joined(row.sample for row in rounds), peer_sample=peer)


def in_turns(
    works: Mapping[str, Work], *, turns: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Sample]:
    """Do each work once to warm up, then all of them in turns, so that what else the machine does hits all.

    Args:
        works: What to do, by name.
        turns: How often.
        clock: Tells seconds; `time.process_time` counts this process alone.

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
    """Amounts a second of the seconds that `in_turns` gives."""
    return {name: Sample(tuple(amount / s for s in sample.values)) for name, sample in seconds.items()}


def machine() -> dict[str, object]:
    """Where it was measured."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
