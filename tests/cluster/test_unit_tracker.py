"""Where a run's units are."""

from gax_batch.cluster.progress import Stall, duration
from gax_batch.cluster.unit_tracker import (
    INFERRING,
    MAX_REPEATS,
    READING,
    WAITING,
    WRITING,
    Board,
    Step,
)


def test_a_unit_goes_from_reading_to_its_part_and_leaves():
    board = Board()
    assert board.enter("a", READING)
    assert board.view().units == {"reading": 1}
    board.leave("a", READING)
    assert board.view().units == {WAITING: 1}
    assert board.view().first_inference is None
    assert board.enter("a", INFERRING, "node/1")
    board.advance("a", 256)
    board.advance("a", 44)
    view = board.view()
    assert (view.units, view.inferred, view.engines, view.in_flight) == (
        {INFERRING: 1},
        {"a": 300},
        ("node/1",),
        1,
    )
    assert view.first_inference is not None
    board.leave("a", INFERRING)
    assert board.view().in_flight == 1
    assert board.enter("a", WRITING)
    board.leave("a", WRITING)
    assert board.view().units == board.view().inferred == {}


def test_a_unit_that_is_tried_again_counts_its_cutouts_anew():
    board = Board()
    board.enter("a", INFERRING, "node/1")
    board.advance("a", 256)
    board.enter("a", INFERRING, "node/2")
    assert board.view().inferred == {"a": 0}
    assert board.view().units == {INFERRING: 1}
    assert board.view().engines == ("node/1", "node/2")


def test_a_step_whose_result_is_lost_again_and_again_counts_as_one_without_an_end():
    board = Board()
    tries = []
    for _ in range(MAX_REPEATS + 3):
        tries.append(board.enter("a", READING))
        board.leave("a", READING)
    assert tries == [1] * (MAX_REPEATS + 1) + [2, 3]
    board.forget("a")
    assert board.enter("a", READING) == 1


def test_a_closed_board_lets_units_end_and_none_begin():
    board = Board()
    board.enter("a", INFERRING, "node/1")
    board.enter("b", READING)
    board.leave("b", READING)
    board.close()
    assert not board.enter("b", INFERRING, "node/1")
    assert not board.enter("c", READING)
    assert board.view().units == {INFERRING: 1}
    board.leave("a", INFERRING)
    assert board.enter("a", WRITING)
    board.leave("a", WRITING)
    assert board.view().in_flight == 0


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_a_step_is_under_way_until_it_ends_and_its_tries_are_counted():
    clock = Clock()
    board = Board(clock)
    assert board.enter("a", READING, "one") == 1
    clock.now = 5
    assert board.enter("b", INFERRING, "two") == 1
    assert board.view().steps == (Step("a", READING, "one", 5), Step("b", INFERRING, "two", 0))
    # Its worker died: it begins again, elsewhere, and the time counts from then.
    clock.now = 9
    assert board.enter("a", READING, "two") == 2
    assert board.view().steps == (Step("b", INFERRING, "two", 4), Step("a", READING, "two", 0))
    board.leave("a", READING)
    assert board.enter("a", INFERRING, "one") == 1
    # The reader's word of its end may come twice, or late.
    board.leave("a", READING)
    assert board.view().units == {INFERRING: 2}
    board.forget("a")
    board.forget("b")
    assert board.view().steps == ()
    assert board.enter("b", INFERRING, "two") == 1


def test_a_stall_is_told_again_and_again_until_something_comes():
    clock, board = Clock(), Board(lambda: 100.0)
    stall = Stall(60, clock=clock)
    assert stall.see(0, board.view()) is None
    clock.now = 59
    assert stall.see(0, board.view()) is None
    clock.now = 61
    told = stall.see(0, board.view())
    assert told is not None
    assert duration(61) in told
    assert stall.see(0, board.view()) is None
    board.enter("unit-a", INFERRING, "n7/12")
    board.enter("unit-b", READING, "n8/13")
    board.leave("unit-b", READING)
    clock.now = 125
    told = stall.see(0, board.view())
    assert told is not None
    for fact in (duration(125), f"1 {INFERRING}", f"1 {WAITING}", "unit-a", duration(0), "n7/12"):
        assert fact in told
    assert "unit-b" not in told
    clock.now = 190
    assert stall.see(256, board.view()) is None
    clock.now = 240
    assert stall.see(256, board.view()) is None


def test_a_run_without_progress_is_given_up_but_not_while_a_step_may_still_end():
    clock = Clock()
    board = Board(clock)
    stall = Stall(60, give_up_seconds=600, step_seconds=300, clock=clock)
    stall.see(0, board.view())
    clock.now = 599
    assert stall.over(board.view()) is None
    clock.now = 600
    assert "--give-up-minutes" in (stall.over(board.view()) or "")
    board.enter("unit-a", INFERRING, "n7/12")
    clock.now = 899
    assert stall.over(board.view()) is None
    clock.now = 901
    cause = stall.over(board.view())
    assert cause is not None
    assert all(fact in cause for fact in (duration(901), INFERRING, "unit-a", "n7/12"))
    # Progress begins the wait again.
    stall.see(1, board.view())
    assert stall.over(board.view()) is None
