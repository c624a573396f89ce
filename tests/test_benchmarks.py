"""The benchmarks' own arithmetic, and that one of them still runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from message_facts import numbers_in

from benchmarks.page import keep, sections
from benchmarks.records import Record, agreement, joined
from benchmarks.suite import Row, Sample, Target, in_turns, rates

ROOT = Path(__file__).resolve().parents[1]


def test_works_are_done_in_turns_after_a_warm_up() -> None:
    done: list[str] = []
    ticks = iter(range(100))
    works = {"a": lambda: done.append("a"), "b": lambda: done.append("b")}
    seconds = in_turns(works, turns=3, clock=lambda: next(ticks) * 0.5)
    assert "".join(done) == "ab" + "ababab"
    assert seconds == {"a": Sample((0.5,) * 3), "b": Sample((0.5,) * 3)}
    assert rates(seconds, 10)["a"] == Sample((20.0,) * 3)


def test_rounds_are_pooled_and_runs_agree_within_their_spread(tmp_path: Path) -> None:
    def record(*values: float) -> Record:
        return Record(
            "x", "", False, [{}], rows=[Row("y", "s", Sample(values), "z", Sample(values), Target(2))]
        )

    both = joined([record(1.0, 2.0), record(3.0)])
    assert both.rows == [Row("y", "s", Sample((1.0, 2.0, 3.0)), "z", Sample((1.0, 2.0, 3.0)), Target(2))]
    both.save(tmp_path / "x.json")
    assert Record.load(tmp_path / "x.json") == both
    assert Sample((1.0, 2.0, 3.0)).agrees(Sample((3.0, 4.0, 5.0)))
    assert not Sample((1.0, 2.0, 3.0)).agrees(Sample((4.0, 4.5, 5.0)))
    (tmp_path / "later").mkdir()
    record(4.0, 4.5, 5.0).save(tmp_path / "later" / "x.json")
    told = agreement(tmp_path, tmp_path / "later")
    assert numbers_in(str(told.caption)) == ["0", "1"]
    assert [list(column.cells) for column in told.columns] == [
        *(["y"], ["s"], ["2 ± 50%"], ["4.5 ± 11%"], ["NO"], ["1 ± 0%, 1 ± 0%"], ["yes"])
    ]


def test_kept_records_of_two_machines_are_shown_side_by_side(tmp_path: Path) -> None:
    for kind, value in (("Old CPU, AVX2", 10.0), ("New CPU, AMX", 30.0)):
        rows = [Row("speed", "1/s", Sample((value,)), "other", Sample((5.0,)), Target(3, of_ratio=True))]
        if kind.startswith("New"):
            rows.append(Row("size", "MiB", Sample((7.0,))))
        Record("x", "About x", False, [{"kind": kind}], rows=rows).save(tmp_path / "x.json")
        keep(tmp_path / "x.json", kind, tmp_path / "measured")
    ((title, head, shown),) = sections(tmp_path / "measured")
    assert title == "About x"
    assert [head[2], head[4]] == ["New CPU, AMX", "Old CPU, AVX2"]
    (what, unit, new, compared, old, less), (_, _, size, *rest) = shown
    assert (what, unit, new, old) == ("speed", "1/s", "30 ± 0%", "10 ± 0%")
    assert (compared, less) == ("6 times other", "2 times other")
    assert (size, rest) == ("7 ± 0%", ["", "", ""])


def test_a_ratio_is_of_the_same_turn() -> None:
    mine, peer = Sample((10.0, 20.0, 60.0)), Sample((5.0, 10.0, 10.0))
    row = Row("x", "1/s", mine, "peer", peer)
    assert row.ratio == 2.0  # of 2, 2 and 6
    assert mine.median == 20
    assert mine.spread == 1.25
    assert row.reached is None


@pytest.mark.parametrize(
    ("target", "text", "reached"),
    [
        (Target(20), "≥ 20", True),
        (Target(21), "≥ 21", False),
        (Target(20, at_most=True), "≤ 20", True),
        (Target(19, at_most=True), "≤ 19", False),
        (Target(4, of_ratio=True), "≥ 4x", True),
        (Target(2.5, at_most=True, of_ratio=True), "≤ 2.5x", False),
    ],
)
def test_targets(target: Target, text: str, reached: bool) -> None:
    assert str(target) == text
    row = Row("x", "1/s", Sample((20.0,)), "peer", Sample((5.0,)), target)
    assert row.reached is reached


def test_a_target_of_a_ratio_needs_a_peer() -> None:
    with pytest.raises(ValueError, match=r"\bx\b"):
        _ = Row("x", "1/s", Sample((20.0,)), target=Target(2, of_ratio=True)).reached


def test_a_benchmark_prints_its_rows_and_writes_json(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-m", "benchmarks", "jpeg", "--quick", "--output", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    record = json.loads((tmp_path / "jpeg.json").read_text())
    speed, *differences = record["rows"]
    assert speed["what"] in done.stdout
    assert speed["asked"] == "≥ 2,500"
    assert len(speed["sample"]["values"]) == len(speed["peer_sample"]["values"]) == 2
    assert [row["reached"] for row in differences] == [True, True]
