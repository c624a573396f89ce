"""A worker's steps, without the engine that spreads them."""

from contextlib import contextmanager
from dataclasses import asdict, replace

import pyarrow as pa
import pytest
from fake_engine import FakeEngine

from gax_batch.cluster import workers
from gax_batch.cluster.unit import UnitResult, UnitStatus
from gax_batch.cluster.unit_tracker import (
    BYTES_PER_SECOND,
    INFERRING,
    LEAST_SECONDS,
    READING,
    WRITING,
    StepLimit,
    UnitTracker,
)
from gax_batch.cluster.workers import MAX_LOADS, Classifier, SingleUnitActor, Steps, read_block, write_block
from gax_batch.errors import FatalError
from gax_batch.rejects import Reason, Reject, Stage


class Reports:
    """A tracker in this process, that remembers what it heard."""

    def __init__(self):
        self.tracker, self.heard = UnitTracker(), []

    def enter(self, unit_id, state):
        self.heard.append(state)
        return self.tracker.enter(unit_id, state, "here")

    def advance(self, unit_id, cutouts):
        self.tracker.advance(unit_id, cutouts)

    def leave(self, unit_id, state):
        self.tracker.leave(unit_id, state)

    def begin_load(self):
        return self.tracker.begin_load("actor")

    def end_load(self):
        self.tracker.end_load("actor")


@pytest.fixture
def reports():
    return Reports()


@pytest.fixture
def steps(reports):
    return Steps(reports, StepLimit(seconds=60.0), tries=2)


def test_a_unit_goes_through_its_steps_and_each_is_noted(task, options, reports, steps):
    block = read_block(pa.Table.from_pylist([asdict(task)]), options, steps)
    block = Classifier(FakeEngine, options, steps)(block)
    result = UnitResult.from_arrow(write_block(block, options, steps))
    assert (result.part.rows, result.part.rejects) == (4, 1)
    assert reports.heard == [READING, INFERRING, WRITING]
    assert reports.tracker.view().units == {}


def test_a_single_unit_actor_stores_the_same_part_and_rejects_what_is_set_aside(
    task, options, reports, steps
):
    actor = SingleUnitActor(FakeEngine, options, steps)
    tried = actor.attempt(task, {}, keep=False, seconds=60.0)
    assert (tried.part, tried.state.failure) == (None, None)
    whole = actor.attempt(task, {}, keep=True, seconds=60.0)
    block = read_block(pa.Table.from_pylist([asdict(task)]), options, steps)
    flow = UnitResult.from_arrow(write_block(Classifier(FakeEngine, options, steps)(block), options, steps))
    assert whole.part == flow.part
    poison = Reject.of(Stage.INFER, Reason.POISON, "ended its worker while inferring it")
    without = actor.attempt(task, {0: poison}, keep=True, seconds=60.0).part
    assert without.unit_id == whole.part.unit_id
    assert (without.fingerprint, without.rows) == (whole.part.fingerprint, 3)
    assert without.rejects_by_reason == {"empty_file": 1, "poison": 1}


def test_each_step_is_given_the_time_of_its_unit(task, options, reports, monkeypatch):
    given = []

    @contextmanager
    def noted(seconds):
        given.append(seconds)
        yield

    monkeypatch.setattr(workers, "ended_after", noted)
    steps = Steps(reports, StepLimit(cutout_seconds=2.0), tries=2)
    large = replace(task, planned=65_536, bytes=8 * BYTES_PER_SECOND)
    block = read_block(pa.Table.from_pylist([asdict(large)]), options, steps)
    Classifier(FakeEngine, options, steps)(block)
    assert given[0] == LEAST_SECONDS + 2 * 65_536 + 8
    assert given[1] == pytest.approx(LEAST_SECONDS + 2 * 65_536, abs=1)


def test_what_loading_the_models_raises_is_raised_where_they_are_needed(task, options, reports, steps):
    def broken():
        raise FatalError("the bundle is another")

    block = read_block(pa.Table.from_pylist([asdict(task)]), options, steps)
    classifier = Classifier(broken, options, steps)
    with pytest.raises(FatalError, match="the bundle is another"):
        classifier(block)
    assert [step.state for step in reports.tracker.view().steps] == [INFERRING]


def test_models_that_have_ended_their_process_too_often_are_not_loaded_again(task, options, reports, steps):
    for _ in range(MAX_LOADS):
        assert reports.begin_load() <= MAX_LOADS
    loads = []
    block = read_block(pa.Table.from_pylist([asdict(task)]), options, steps)
    classifier = Classifier(lambda: loads.append(1), options, steps)
    with pytest.raises(FatalError, match=f"{MAX_LOADS} times"):
        classifier(block)
    assert loads == []


def test_a_step_that_has_ended_its_workers_too_often_is_not_begun_again(task, options, reports, steps):
    for _ in range(2):
        reports.enter(task.unit_id, READING)
    with pytest.raises(FatalError, match=r"\b2\b"):
        read_block(pa.Table.from_pylist([asdict(task)]), options, steps)


def test_a_run_that_is_told_to_stop_begins_no_step(task, options, reports, steps):
    pointer = pa.Table.from_pylist([asdict(task)])
    block = read_block(pointer, options, steps)
    reports.tracker.close()
    left_out = UnitResult.from_arrow(read_block(pointer, options, steps))
    assert left_out.state.status is UnitStatus.NOT_BEGUN
    left_out = Classifier(FakeEngine, options, steps)(block)
    assert UnitResult.from_arrow(left_out).state.status is UnitStatus.NOT_BEGUN
    assert UnitResult.from_arrow(write_block(left_out, options, steps)).part is None
    actor = SingleUnitActor(FakeEngine, options, steps)
    tried = actor.attempt(task, {}, keep=True, seconds=60.0)
    assert (tried.part, tried.state.status) == (None, UnitStatus.NOT_BEGUN)
