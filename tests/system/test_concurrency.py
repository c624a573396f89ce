"""Many items in threads: order, bound, and what becomes of an error."""

import threading

import pytest

from gax_batch.system.concurrency import READ_THREADS, map_threads


def test_results_come_in_the_order_of_the_items():
    gates = [threading.Event() for _ in range(3)]

    def wait(number: int) -> int:
        # Each waits for the one after it.
        if number + 1 < len(gates):
            assert gates[number + 1].wait(10)
        gates[number].set()
        return number

    assert list(map_threads(wait, range(3))) == [0, 1, 2]
    assert list(map_threads(wait, [])) == []


def test_no_more_are_begun_than_the_reader_can_hold():
    begun: list[int] = []
    results = map_threads(lambda number: begun.append(number) or number, range(100))
    assert next(results) == 0
    assert len(begun) <= READ_THREADS
    assert list(results) == list(range(1, 100))
    assert sorted(begun) == list(range(100))


def test_an_error_is_raised_in_its_turn_and_the_rest_is_not_begun():
    begun: list[int] = []

    def fail(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise OSError("torn")
        return number

    results = map_threads(fail, range(1000))
    assert next(results) == 0
    with pytest.raises(OSError, match="torn"):
        next(results)
    assert len(begun) < 1000
