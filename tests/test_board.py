"""Where a run's units are."""

from gax_batch.board import INFERRING, READING, WAITING, WRITING, Board


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
