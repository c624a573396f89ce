"""Apply one function to many items, in processes or in threads of this machine."""

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
"""Maximum number of concurrent requests of this process to one store."""


def map_processes(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Result]:
    """Apply a function to items in worker processes and yield the results in the order of the items.

    Args:
        function: A function at the top level of a module, so that a process can import it.
        items: Small values. Each is sent to a process.
        workers: Maximum number of processes. With one, the work is done in this process.

    Raises:
        FatalError: A process was terminated.
    """
    if min(workers, len(items)) <= 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(min(workers, len(items)), multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(function, items)
        except BrokenProcessPool as error:
            raise FatalError(
                "a worker process was terminated, probably for lack of memory; use fewer processes or "
                "smaller shards"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def map_threads(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int = READ_THREADS
) -> Iterator[Result]:
    """Apply a function to items in threads and yield the results in the order of the items.

    At most `threads` results are in memory.

    Args:
        function: A function that waits for a store or a disk. Its exceptions are raised here.
        items: Arguments of the function, one for each call.
        threads: Number of threads.
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
