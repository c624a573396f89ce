"""What a run tells while it goes on, by Ray: its board as an actor, and its metrics, which Ray exports.

Besides `pipeline` the only module that imports Ray. Nothing here may end a run: a lost report is lost.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gax_batch.board import Board, BoardView
from gax_batch.progress import Sample
from gax_batch.unit import worker_name

SAMPLE_EVERY_SECONDS = 1.0
_ANSWER_SECONDS = 10.0


class Reporter:
    """A worker's way to the board; where that cannot be reached, work goes on unreported."""

    def __init__(self, board: ActorHandle) -> None:
        self._board = board

    def enter(self, unit_id: str, state: str) -> bool:
        """Begin a step, if it may begin."""
        try:
            reply = self._board.enter.remote(unit_id, state, worker_name())
            return bool(ray.get(reply, timeout=_ANSWER_SECONDS))
        except ray.exceptions.RayError:
            return True

    def advance(self, unit_id: str, cutouts: int) -> None:
        """Say how many more cutouts of a unit are inferred."""
        self._board.advance.remote(unit_id, cutouts)

    def leave(self, unit_id: str, state: str) -> None:
        """End a step."""
        self._board.leave.remote(unit_id, state)


@contextmanager
def open_board() -> Iterator[ActorHandle]:
    """A board beside the driver, with which it lives and dies."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(Board).options(num_cpus=0, scheduling_strategy=here, max_restarts=3).remote()
    try:
        yield board
    finally:
        ray.kill(board)


@contextmanager
def watched(board: ActorHandle, engines: int, see: Callable[[Sample], bool]) -> Iterator[None]:
    """While the block runs, show `see` every second how the run stands; where it says so, close the board."""
    done = threading.Event()

    def watch() -> None:
        closed = False
        while not done.wait(SAMPLE_EVERY_SECONDS):
            try:
                sample = _sample(board, engines)
                if see(sample) and not closed:
                    ray.get(board.close.remote(), timeout=_ANSWER_SECONDS)
                    closed = True
            except ray.exceptions.RayError:
                continue

    thread = threading.Thread(target=watch, name="run-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(_ANSWER_SECONDS)


def _sample(board: ActorHandle, engines: int) -> Sample:
    view: BoardView = ray.get(board.view.remote(), timeout=_ANSWER_SECONDS)
    there = ray.cluster_resources().get("object_store_memory", 0.0)
    free = ray.available_resources().get("object_store_memory", 0.0)
    return Sample(view, engines, int(there - free), int(there))
