"""Memory: predicted before a run, refused where it cannot fit, measured during it."""

import subprocess
import sys
import time

import pytest

from gax_batch.errors import UsageError
from gax_batch.system.cpus import logical_cpus
from gax_batch.system.machine import (
    MIB,
    Layout,
    MemoryMeter,
    Resources,
    available_bytes,
    cluster_address,
    lay_out,
    local_resources,
    predict_memory,
    require_memory,
)


def resources(unit_size=4096, cpus=2, workers="auto", store="auto"):
    return local_resources(cpus=cpus, workers=workers, object_store_mib=store, unit_size=unit_size)


def test_auto_takes_what_the_machine_has():
    got = local_resources(cpus="auto", workers="auto", object_store_mib="auto", unit_size=64)
    assert got.cpus == logical_cpus() >= 1
    assert got.workers is None
    assert got.object_store_bytes == 256 * MIB


def test_what_is_asked_for_is_taken():
    got = resources(cpus=3, workers=2, store=700)
    assert (got.cpus, got.workers, got.object_store_bytes) == (3, 2, 700 * MIB)


def test_the_object_store_follows_the_unit_size():
    assert resources(unit_size=8192).object_store_bytes == 2 * resources(unit_size=4096).object_store_bytes


def predicted(units=1, unit_size=4096, passes=8, draws=32, kept_draws=0, **asked):
    return predict_memory(
        resources(unit_size, **asked),
        units=units,
        unit_size=unit_size,
        passes=8,
        draws=draws,
        kept_draws=kept_draws,
    )


def test_a_hundred_million_galaxies_stay_under_4_gib_beside_the_store_on_2_cores():
    need = predicted(units=100_000_000 // 4096 + 1)
    assert need.total - need.object_store < 4096 * MIB


def test_more_galaxies_units_draws_and_workers_need_more():
    base = predicted().total
    assert predicted(units=10**5).total > base
    assert predicted(draws=1024).total > base
    assert predicted(workers=4).total > base
    assert predicted(kept_draws=32).total > base
    assert predicted(unit_size=65_536).total > base


def test_the_cluster_is_the_one_asked_for_or_the_environments(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cluster_address() is None
    assert cluster_address("head:6379") == "head:6379"
    monkeypatch.setenv("RAY_ADDRESS", "other:6379")
    assert cluster_address() == "other:6379"
    assert cluster_address("head:6379") == "head:6379"
    assert cluster_address("local") is None
    with pytest.raises(UsageError, match="ray job submit"):
        cluster_address("ray://head:10001")


def test_on_a_cluster_only_the_driver_counts(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray-head:6379")
    need = predicted(units=10**5)
    assert need.total == need.driver > 0


def test_a_run_that_cannot_fit_is_refused_with_the_numbers():
    need = predicted()
    require_memory(need, need.total)
    with pytest.raises(UsageError, match=r"[\d,]+ MiB .*\b100 MiB .*--unit-size"):
        require_memory(need, 100 * MIB)


def test_available_memory_is_a_sane_number():
    assert 0 < available_bytes() < 2**50


def test_the_meter_sees_the_memory_of_children():
    code = "x = bytearray(200 << 20); print('ready', flush=True); input()"
    with MemoryMeter(interval_seconds=0.05) as meter:
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with child:
            assert child.stdout is not None
            child.stdout.readline()
            before = meter.peak_bytes
            deadline = time.monotonic() + 5
            while meter.peak_bytes < 200 * MIB and time.monotonic() < deadline:
                time.sleep(0.05)
            child.communicate("\n")
    assert meter.peak_bytes >= max(200 * MIB, before)


@pytest.mark.parametrize(
    ("asked", "cpus", "gpus", "units", "expected"),
    [
        # Engines, threads, CPUs and GPUs of each, readers.
        ({}, 2, 0, 10, (1, 2, 0.25, None, 2)),
        ({}, 1, 0, 10, (1, 1, 0.25, None, 1)),
        ({"workers": 8}, 2, 0, 10, (8, 1, 0.0625, None, 2)),
        ({"workers": 8}, 2, 0, 1, (1, 2, 0.25, None, 1)),
        ({}, 16, 2, 100, (2, 8, 0.25, 1.0, 16)),
        ({"workers": 3}, 16, 2, 100, (3, 5, 0.25, 0.5, 16)),
    ],
)
def test_what_there_is_is_shared_out(asked, cpus, gpus, units, expected):
    use = lay_out(Resources(cpus, asked.get("workers"), 0), cpus, gpus, units)
    assert (use.workers, use.threads, use.engine_cpus, use.engine_gpus, use.readers) == expected
    # What all of them ask for leaves room for a step of each kind.
    assert use.workers * use.engine_cpus + 2 * use.reader_cpus <= cpus


def test_many_engines_leave_most_cpus_to_reading_and_writing():
    use = lay_out(Resources(2, 64, 0), 2, 0, 1000)
    assert use.workers * use.engine_cpus <= 0.5


def test_engines_of_a_growing_cluster_get_what_they_ask_for():
    use = lay_out(Resources(2, 4, 0, engine_cpus=3.5, engine_gpus=1, address="auto"), 0, 0, 100)
    lack = use.lack(13, 4)
    assert lack is not None
    assert all(fact in lack for fact in ("4 engines", "3.5 CPUs", "1 GPUs", "13 CPUs"))
    assert use.lack(14, 3) is not None
    assert use.lack(14, 4) is None
    assert use == Layout(4, 3, 3.5, 1, None, 0.75)
