"""CPU seconds of a run by kind of process, sampled from outside: the profile of a measurement."""

import threading
from collections import Counter
from types import TracebackType

import psutil

PERIOD = 0.25
ENGINES = "engines"
STEPS = "readers and writers"
DRIVER = "driver"
RAY = "Ray's own processes"
KINDS = (ENGINES, STEPS, DRIVER, RAY)


def kind_of(root: int, process: psutil.Process) -> str:
    """Return the kind of a process of a run. Workers of Ray have the names of their tasks."""
    if process.pid == root:
        return DRIVER
    name = "".join(process.cmdline()[:1])
    if "Classifier" in name:
        return ENGINES
    return STEPS if any(step in name for step in ("read_block", "write_block")) else RAY


class Usage:
    """Sample a process and all its descendants while the block runs.

    CPU time after the last sample of a process is lost: a quarter of a second of each at most.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._seconds: dict[int, float] = {}
        self._kinds: dict[int, str] = {}
        self._before: dict[int, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Usage":
        self._sample()
        self._before = dict(self._seconds)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def seconds(self) -> Counter[str]:
        """Return the CPU seconds since the block began, by kind."""
        found: Counter[str] = Counter()
        for pid, seconds in list(self._seconds.items()):
            found[self._kinds[pid]] += seconds - self._before.get(pid, 0.0)
        return found

    def _watch(self) -> None:
        while not self._over.wait(PERIOD):
            self._sample()

    def _sample(self) -> None:
        try:
            root = psutil.Process(self._root)
            processes = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            try:
                times = process.cpu_times()
                kind = kind_of(self._root, process)
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            self._seconds[process.pid] = times.user + times.system
            # A worker has no name before its first task, and is idle between two tasks.
            if kind != RAY or process.pid not in self._kinds:
                self._kinds[process.pid] = kind
