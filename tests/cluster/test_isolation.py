"""Which cutout of a unit is blamed, for what, and when nobody is."""

import subprocess
import sys
import time

import pytest
from wording import numbers_in

from gax_batch.cluster.isolation import MAX_POISON, PAUSES_SECONDS, Death, save_unit
from gax_batch.cluster.unit import UnitResult, UnitState, UnitTask
from gax_batch.cluster.unit_tracker import INFERRING, LEAST_SECONDS, READING
from gax_batch.errors import FatalError
from gax_batch.rejects import Reason, Stage

DEATH = Death(INFERRING, "ended its worker")


class Ward:
    """Trials of a unit of which some cutouts kill, some kill a few times, and so many together kill."""

    def __init__(self, planned=16, kills=(), passing=0, together=10**6, step=INFERRING):
        self.task = UnitTask("file:///plan", 0, "unit", "fingerprint", planned)
        self.kills, self.passing, self.together = set(kills), passing, together
        self.death = Death(step, "ended its worker")
        self.tries, self.pauses, self.kept, self.seconds = [], [], None, []

    def __call__(self, task, aside, *, keep, seconds):
        inside = set(range(task.planned)) - set(aside)
        self.tries.append(inside)
        self.seconds.append(seconds)
        if self.kills & inside or len(inside) >= self.together:
            return self.death
        if self.passing:
            self.passing -= 1
            return self.death
        if keep:
            self.kept = dict(aside)
        return UnitResult(UnitState(task.unit_id, task.fingerprint, task.planned), None)

    def save(self, seconds=10_000.0):
        return save_unit(self.task, self, seconds, sleep=self.pauses.append)


def test_a_unit_whose_worker_died_by_chance_is_whole_at_the_first_try():
    ward = Ward()
    assert ward.save().state.failure is None
    assert ward.kept == {}
    assert len(ward.tries) == 1
    assert ward.pauses == [PAUSES_SECONDS[0]]


@pytest.mark.parametrize("guilty", [{0}, {15}, {7}, {3, 4}, {0, 5, 15}, set(range(MAX_POISON))])
def test_the_guilty_alone_are_set_aside(guilty):
    ward = Ward(kills=guilty)
    assert ward.save().state.failure is None
    assert ward.kept is not None
    assert ward.kept.keys() == guilty
    for reject in ward.kept.values():
        assert (reject.stage, reject.reason) == (Stage.INFER, Reason.POISON)
        assert DEATH.cause in reject.detail
        assert INFERRING in reject.detail
    # Who is blamed has killed twice on its own.
    assert all(ward.tries.count({place}) >= 2 for place in guilty)


def test_blame_names_the_stage():
    ward = Ward(kills={2}, step=READING)
    ward.save()
    assert ward.kept[2].stage is Stage.DECODE


def test_the_search_halves_and_is_bounded():
    ward = Ward(planned=4096, kills={4095})
    ward.save()
    # Two whole, one of none, two halves a level, the blamed again, and the rest.
    assert len(ward.tries) <= 2 + 1 + 2 * 12 + 1 + 1


def test_a_worker_that_dies_of_nothing_at_all_is_no_cutouts_fault():
    ward = Ward(passing=10**6)
    with pytest.raises(FatalError, match=f"{DEATH.cause}.*{INFERRING}"):
        ward.save()
    assert len(ward.tries) == len(PAUSES_SECONDS) + 1


def test_a_unit_that_is_too_large_fails_and_nobody_is_blamed():
    ward = Ward(together=9)
    failure = ward.save().state.failure
    assert numbers_in(failure) == ["16"]
    assert DEATH.cause in failure
    assert ward.kept is None


def test_more_poison_than_can_be_fails_the_unit():
    ward = Ward(kills=set(range(MAX_POISON + 1)))
    assert numbers_in(ward.save().state.failure) == [str(MAX_POISON)]


def test_a_death_by_chance_during_the_search_blames_nobody():
    ward = Ward(kills={5})
    calls = []

    def flaky(task, aside, *, keep, seconds):
        calls.append(aside)
        return DEATH if len(calls) == 4 else ward(task, aside, keep=keep, seconds=seconds)

    # The first half that is tried dies though it has poison in it or not: only poison is blamed.
    result = save_unit(ward.task, flaky, 10.0, sleep=lambda _: None)
    assert result.state.failure is None
    assert ward.kept.keys() == {5}


def test_a_part_of_a_unit_has_its_share_of_the_time_but_a_store_gets_its_own():
    ward = Ward(kills={0})
    ward.save(seconds=16_000.0)
    by_size = {len(inside): seconds for inside, seconds in zip(ward.tries, ward.seconds, strict=True)}
    assert by_size[16] == 16_000
    assert by_size[8] == 8_000
    assert by_size[0] == LEAST_SECONDS
    short = Ward(kills={0})
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
