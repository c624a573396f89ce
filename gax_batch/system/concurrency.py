"""The same function over many items, in processes or in threads of this machine."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from gax_batch.errors import FatalError

Item = TypeVar("Item")
Result = TypeVar("Result")

READ_THREADS = 16
"""Requests of this process at once to one store, where each waits for its answer."""


def map_processes(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """Yield the results in the order of the items, each when it and those before it are there.

    Args:
        function: At the top level of a module, so that a process can import it.
        items: Small values; each travels to a process.
        workers: How many processes; with one, the work is done in this one.

    Raises:
        FatalError: A process died.
    """
    if min(workers, len(items)) <= 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(min(workers, len(items)), multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(function, items)
        except BrokenProcessPool as error:
            raise FatalError(
                "a worker process died, probably for lack of memory; use fewer processes or smaller shards"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def map_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int = READ_THREADS
) -> Iterator[Result]:
    """Yield the results in the order of the items, with no more than `threads` of them in memory.

    Args:
        function: Waits for a store or a disk; what it raises is raised here.
        items: What to call it with.
        threads: How many.
    """
    with ThreadPoolExecutor(threads) as pool:
        begun: deque[Future[Result]] = deque()
        try:
            for item in items:
                begun.append(pool.submit(function, item))
                if len(begun) == threads:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
