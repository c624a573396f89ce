"""The wiring of Ray asks nothing of it that is not documented, and gets what it needs."""

import inspect
import os
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import ray
import ray.data
from fake_engine import FakeEngine

from gax_batch.cluster import pipeline
from gax_batch.errors import FatalError
from gax_batch.system.machine import MIB, Resources

RESOURCES = Resources(2, None, 128 * MIB)


def test_a_worker_s_end_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """In a session of its own: pytest gives each test a standard output of its own."""

    @ray.remote(num_cpus=1, max_retries=0)
    def end() -> None:
        os._exit(1)

    with pipeline.ray_session(RESOURCES):
        with pytest.raises(ray.exceptions.WorkerCrashedError):
            ray.get(end.remote())
        time.sleep(2)  # Ray prints it later, in a thread
        print("mine", flush=True)
    assert capfd.readouterr().out == "mine\n"


def test_a_machine_that_is_too_busy_to_start_ray_is_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", late)
    with pytest.raises(FatalError, match="timed out"), pipeline.ray_session(RESOURCES):
        pass


@pytest.fixture(scope="module")
def session() -> Iterator[str]:
    with pipeline.ray_session(RESOURCES) as folder:
        yield folder


def test_only_documented_arguments_reach_ray_data(
    session: str, task: Any, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`**ray_remote_args` leaves Ray Data in 2.64."""
    original = ray.data.Dataset.map_batches
    named = {
        name
        for name, parameter in inspect.signature(original).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    given: set[str] = set()

    def recorded(self: ray.data.Dataset, *args: Any, **more: Any) -> ray.data.Dataset:
        given.update(more)
        return original(self, *args, **more)

    monkeypatch.setattr(ray.data.Dataset, "map_batches", recorded)
    with pipeline.open_tracker() as tracker:
        config = pipeline.WorkerConfig(FakeEngine, options, RESOURCES, tracker, 60.0)
        pipeline._wire([task], config)
    assert given
    assert given <= named


def test_workers_outlive_a_pause(session: str) -> None:
    """Ray ends those that idle for a second, beyond one for each CPU."""

    @ray.remote(num_cpus=0.25, max_retries=0)
    def wait() -> int:
        time.sleep(1)
        return os.getpid()

    workers = set(ray.get([wait.remote() for _ in range(6)]))
    assert len(workers) > 2
    time.sleep(4)
    assert all(psutil.pid_exists(worker) for worker in workers)


def test_precisions_are_timed_on_a_node_of_the_cluster(session: str) -> None:
    rates = pipeline.rates_of_cluster(1)
    assert rates is not None
    assert rates.keys() == {"float32", "bfloat16"}
    assert min(rates.values()) > 0
