"""What a run tells the person who waits."""

from dataclasses import replace

import pytest
from message_facts import numbers_in

from gax_batch.catalog.parts import Part
from gax_batch.cluster.progress import Progress, RunCounts, duration
from gax_batch.cluster.unit import UnitResult, UnitState
from gax_batch.models.appearance import STATISTICS
from gax_batch.models.domain import Counts


def part(unit: str, rows: int, **rejects: int) -> Part:
    count = sum(rejects.values())
    return Part(unit, "f", f"parts/s/{unit}.parquet", 1, rows, count, rows + count, "{}", None, rejects)


def test_a_tally_counts_new_and_reused_parts_and_failures():
    run_counts = RunCounts()
    run_counts.reuse([part("a", 10, truncated=2)])
    run_counts.add(
        UnitResult(UnitState("b", "f", 5, None, {"read": 1.0, "infer": 2.0}), part("b", 4, truncated=1))
    )
    run_counts.add(UnitResult(UnitState("c", "f", 7, "reading failed: gone", {"read": 0.5}), None))
    assert (run_counts.rows, run_counts.rejects, run_counts.reused_units, run_counts.reused_cutouts) == (
        14,
        3,
        1,
        12,
    )
    assert run_counts.rejects_by_reason == {"truncated": 3}
    assert run_counts.failures == {"c": "reading failed: gone"}
    assert run_counts.seconds_by_step == {"read": 1.5, "infer": 2.0}


def test_a_tally_adds_up_what_new_and_reused_units_say_of_their_images():
    counts = [Counts(n, n // 2, tuple(range(n, n + len(STATISTICS)))) for n in (3, 10, 4)]
    parts = [replace(part(unit, 1), images=c.to_json()) for unit, c in zip("abc", counts, strict=True)]
    run_counts = RunCounts()
    run_counts.reuse(parts[:2])
    run_counts.add(UnitResult(UnitState("c", "f", 1), parts[2]))
    run_counts.add(UnitResult(UnitState("d", "f", 1), part("d", 1)))  # of a bundle without a reference
    assert run_counts.images == counts[0] + counts[1] + counts[2]
    assert run_counts.images.galaxies == 17


def test_progress_says_how_far_how_fast_and_how_long(messages):
    now = [100.0]
    shown = Progress(planned=1_000, clock=lambda: now[0])
    now[0] += 1
    shown.advance(100, rejects=0)  # too soon for a line
    now[0] += 9
    shown.advance(400, rejects=3)
    shown.advance(500, rejects=4)  # the end is always said
    assert [numbers_in(line) for line in messages] == [
        ["1,000", "10", "3", "50.0", "500"],
        ["0", "1,000", "1,000", "100.0", "4"],
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7_620, "2 h 07 min"), (3_599.7, "1 h 00 min")],
)
def test_durations_are_said_as_a_person_does(seconds, words):
    assert duration(seconds) == words


def test_a_tally_does_not_read_all_parts_again_for_each_unit():
    class Unread(list):
        def __iter__(self):
            pytest.fail("all parts were read")

    run_counts = RunCounts(parts=Unread())
    run_counts.add(UnitResult(UnitState("a", "f", 3), part("a", 2, truncated=1)))
    assert (run_counts.rows, run_counts.rejects, len(run_counts.parts)) == (2, 1, 1)
