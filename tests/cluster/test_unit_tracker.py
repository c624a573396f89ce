"""Where a run's units are."""

from gax_batch.cluster.progress import Stall, duration
from gax_batch.cluster.unit_tracker import (
    INFERRING,
    MAX_REPEATS,
    READING,
    WAITING,
    WRITING,
    Step,
    UnitTracker,
)


def test_a_unit_goes_from_reading_to_its_part_and_leaves():
    tracker = UnitTracker()
    assert tracker.enter("a", READING)
    assert tracker.view().units == {"reading": 1}
    tracker.leave("a", READING)
    assert tracker.view().units == {WAITING: 1}
    assert tracker.view().first_inference is None
    assert tracker.enter("a", INFERRING, "node/1")
    tracker.advance("a", 256)
    tracker.advance("a", 44)
    view = tracker.view()
    assert (view.units, view.inferred, view.engines, view.in_flight) == (
        {INFERRING: 1},
        {"a": 300},
        ("node/1",),
        1,
    )
    assert view.first_inference is not None
    tracker.leave("a", INFERRING)
    assert tracker.view().in_flight == 1
    assert tracker.enter("a", WRITING)
    tracker.leave("a", WRITING)
    assert tracker.view().units == tracker.view().inferred == {}


def test_a_unit_that_is_tried_again_counts_its_cutouts_anew():
    tracker = UnitTracker()
    tracker.enter("a", INFERRING, "node/1")
    tracker.advance("a", 256)
    tracker.enter("a", INFERRING, "node/2")
    assert tracker.view().inferred == {"a": 0}
    assert tracker.view().units == {INFERRING: 1}
    assert tracker.view().engines == ("node/1", "node/2")


def test_a_step_whose_result_is_lost_again_and_again_counts_as_one_without_an_end():
    tracker = UnitTracker()
    tries = []
    for _ in range(MAX_REPEATS + 3):
        tries.append(tracker.enter("a", READING))
        tracker.leave("a", READING)
    assert tries == [1] * (MAX_REPEATS + 1) + [2, 3]
    tracker.forget("a")
    assert tracker.enter("a", READING) == 1


def test_a_closed_board_lets_units_end_and_none_begin():
    tracker = UnitTracker()
    tracker.enter("a", INFERRING, "node/1")
    tracker.enter("b", READING)
    tracker.leave("b", READING)
    tracker.close()
    assert not tracker.enter("b", INFERRING, "node/1")
    assert not tracker.enter("c", READING)
    assert tracker.view().units == {INFERRING: 1}
    tracker.leave("a", INFERRING)
    assert tracker.enter("a", WRITING)
    tracker.leave("a", WRITING)
    assert tracker.view().in_flight == 0


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_a_step_is_under_way_until_it_ends_and_its_tries_are_counted():
    clock = Clock()
    tracker = UnitTracker(clock)
    assert tracker.enter("a", READING, "one") == 1
    clock.now = 5
    assert tracker.enter("b", INFERRING, "two") == 1
    assert tracker.view().steps == (Step("a", READING, "one", 5), Step("b", INFERRING, "two", 0))
    # Its worker died: it begins again, elsewhere, and the time counts from then.
    clock.now = 9
    assert tracker.enter("a", READING, "two") == 2
    assert tracker.view().steps == (Step("b", INFERRING, "two", 4), Step("a", READING, "two", 0))
    tracker.leave("a", READING)
    assert tracker.enter("a", INFERRING, "one") == 1
    # The reader's word of its end may come twice, or late.
    tracker.leave("a", READING)
    assert tracker.view().units == {INFERRING: 2}
    tracker.forget("a")
    tracker.forget("b")
    assert tracker.view().steps == ()
    assert tracker.enter("b", INFERRING, "two") == 1


def test_loads_without_an_end_are_counted_by_actor():
    tracker = UnitTracker()
    assert [tracker.begin_load("one") for _ in range(3)] == [1, 2, 3]
    assert tracker.begin_load("two") == 1
    tracker.end_load("one")
    assert [tracker.begin_load(actor) for actor in ("one", "two")] == [1, 2]
    assert tracker.view().units == {}


def test_a_stall_is_told_again_and_again_until_something_comes():
    clock, tracker = Clock(), UnitTracker(lambda: 100.0)
    stall = Stall(60, clock=clock)
    assert stall.check(0, tracker.view()) is None
    clock.now = 59
    assert stall.check(0, tracker.view()) is None
    clock.now = 61
    told = stall.check(0, tracker.view())
    assert told is not None
    assert duration(61) in told
    assert stall.check(0, tracker.view()) is None
    tracker.enter("unit-a", INFERRING, "n7/12")
    tracker.enter("unit-b", READING, "n8/13")
    tracker.leave("unit-b", READING)
    clock.now = 125
    told = stall.check(0, tracker.view())
    assert told is not None
    for fact in (duration(125), f"1 {INFERRING}", f"1 {WAITING}", "unit-a", duration(0), "n7/12"):
        assert fact in told
    assert "unit-b" not in told
    clock.now = 190
    assert stall.check(256, tracker.view()) is None
    clock.now = 240
    assert stall.check(256, tracker.view()) is None


def test_a_run_without_progress_is_given_up_but_not_while_a_step_may_still_end():
    clock = Clock()
    tracker = UnitTracker(clock)
    stall = Stall(60, give_up_seconds=600, step_seconds=300, clock=clock)
    stall.check(0, tracker.view())
    clock.now = 599
    assert stall.over(tracker.view()) is None
    clock.now = 600
    assert "--give-up-minutes" in (stall.over(tracker.view()) or "")
    tracker.enter("unit-a", INFERRING, "n7/12")
    clock.now = 899
    assert stall.over(tracker.view()) is None
    clock.now = 901
    cause = stall.over(tracker.view())
    assert cause is not None
    assert all(fact in cause for fact in (duration(901), INFERRING, "unit-a", "n7/12"))
    # Progress begins the wait again.
    stall.check(1, tracker.view())
    assert stall.over(tracker.view()) is None
