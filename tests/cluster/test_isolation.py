"""Which cutout of a unit is blamed, for what, and when nobody is."""

import subprocess
import sys
import time

import pytest
from message_facts import numbers_in

from gax_batch.cluster.isolation import MAX_POISON, PAUSES_SECONDS, WorkerFailure, save_unit
from gax_batch.cluster.unit import UnitResult, UnitState, UnitTask
from gax_batch.cluster.unit_tracker import INFERRING, LEAST_SECONDS, READING
from gax_batch.errors import FatalError
from gax_batch.rejects import Reason, Stage

FAILURE = WorkerFailure(INFERRING, "ended its worker")


class FakeWorker:
    """Trials of a unit of which some cutouts kill, some kill a few times, and so many together kill."""

    def __init__(self, planned=16, kills=(), passing=0, together=10**6, step=INFERRING):
        self.task = UnitTask("file:///plan", 0, "unit", "fingerprint", planned)
        self.kills, self.passing, self.together = set(kills), passing, together
        self.failure = WorkerFailure(step, "ended its worker")
        self.tries, self.pauses, self.kept, self.seconds = [], [], None, []

    def __call__(self, task, excluded, *, keep, seconds):
        inside = set(range(task.planned)) - set(excluded)
        self.tries.append(inside)
        self.seconds.append(seconds)
        if self.kills & inside or len(inside) >= self.together:
            return self.failure
        if self.passing:
            self.passing -= 1
            return self.failure
        if keep:
            self.kept = dict(excluded)
        return UnitResult(UnitState(task.unit_id, task.fingerprint, task.planned), None)

    def save(self, seconds=10_000.0):
        return save_unit(self.task, self, seconds, sleep=self.pauses.append)


def test_a_unit_whose_worker_died_by_chance_is_whole_at_the_first_try():
    worker = FakeWorker()
    assert worker.save().state.failure is None
    assert worker.kept == {}
    assert len(worker.tries) == 1
    assert worker.pauses == [PAUSES_SECONDS[0]]


@pytest.mark.parametrize("guilty", [{0}, {15}, {7}, {3, 4}, {0, 5, 15}, set(range(MAX_POISON))])
def test_the_guilty_alone_are_set_aside(guilty):
    worker = FakeWorker(kills=guilty)
    assert worker.save().state.failure is None
    assert worker.kept is not None
    assert worker.kept.keys() == guilty
    for reject in worker.kept.values():
        assert (reject.stage, reject.reason) == (Stage.INFER, Reason.POISON)
        assert FAILURE.cause in reject.detail
        assert INFERRING in reject.detail
    # Who is blamed has killed twice on its own.
    assert all(worker.tries.count({place}) >= 2 for place in guilty)


def test_blame_names_the_stage():
    worker = FakeWorker(kills={2}, step=READING)
    worker.save()
    assert worker.kept[2].stage is Stage.DECODE


def test_the_search_halves_and_is_bounded():
    worker = FakeWorker(planned=4096, kills={4095})
    worker.save()
    # Two whole, one of none, two halves a level, the blamed again, and the rest.
    assert len(worker.tries) <= 2 + 1 + 2 * 12 + 1 + 1


def test_a_worker_that_dies_of_nothing_at_all_is_no_cutouts_fault():
    worker = FakeWorker(passing=10**6)
    with pytest.raises(FatalError, match=f"{FAILURE.cause}.*{INFERRING}"):
        worker.save()
    assert len(worker.tries) == len(PAUSES_SECONDS) + 1


def test_a_unit_that_is_too_large_fails_and_nobody_is_blamed():
    worker = FakeWorker(together=9)
    failure = worker.save().state.failure
    assert numbers_in(failure) == ["16"]
    assert FAILURE.cause in failure
    assert worker.kept is None


def test_more_poison_than_can_be_fails_the_unit():
    worker = FakeWorker(kills=set(range(MAX_POISON + 1)))
    assert numbers_in(worker.save().state.failure) == [str(MAX_POISON)]


def test_a_death_by_chance_during_the_search_blames_nobody():
    worker = FakeWorker(kills={5})
    calls = []

    def flaky(task, excluded, *, keep, seconds):
        calls.append(excluded)
        return FAILURE if len(calls) == 4 else worker(task, excluded, keep=keep, seconds=seconds)

    # The first half that is tried dies though it has poison in it or not: only poison is blamed.
    result = save_unit(worker.task, flaky, 10.0, sleep=lambda _: None)
    assert result.state.failure is None
    assert worker.kept.keys() == {5}


def test_a_part_of_a_unit_has_its_share_of_the_time_but_a_store_gets_its_own():
    worker = FakeWorker(kills={0})
    worker.save(seconds=16_000.0)
    by_size = {len(inside): seconds for inside, seconds in zip(worker.tries, worker.seconds, strict=True)}
    assert by_size[16] == 16_000
    assert by_size[8] == 8_000
    assert by_size[0] == LEAST_SECONDS
    short = FakeWorker(kills={0})
    short.save(seconds=4.0)
    assert set(short.seconds) == {4.0}


ENDLESS = """
import re, sys
from gax_batch.cluster.isolation import ended_after
with ended_after(60.0):
    pass
with ended_after(0.3):
    re.match("(a|a)*$", "a" * 64 + "b")
"""


def test_native_code_that_never_comes_back_is_ended_with_its_stack():
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", ENDLESS], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "line 7 in <module>" in done.stderr
    assert time.monotonic() - start < 50
