"""The size of a cluster, and that the handbook's table is the code's."""

import re

import pytest
from doc_pages import page

from gax_batch.runner.cluster_size import (
    CORE_RATE,
    EngineNode,
    cpu_node,
    gpu_node,
    lines,
    size,
    table,
)
from gax_batch.system.machine import UNIT_BYTES


def test_engines_are_as_many_as_the_hours_ask_for_and_finish_in_them():
    need = size(10**8, cpu_node(), hours=20)
    assert need.engines == 53
    assert 19 < need.seconds / 3600 <= 20
    assert need.core_hours == pytest.approx(10**8 / CORE_RATE / 3600)
    assert size(10**8, cpu_node(), hours=40).engines == 27
    assert size(10, cpu_node(), hours=20).engines == 1


def test_an_engine_has_at_least_a_unit():
    need = size(10_000, EngineNode(1, 0, 0.001), hours=1, unit_size=4096)
    assert need.engines == 3
    assert size(10**6, cpu_node(), hours=20, engines=8).engines == 8


def test_a_gpu_waits_for_its_readers():
    assert gpu_node(2, 1, infer_rate=500, read_rate=600).rate == 500
    assert gpu_node(2, 1, infer_rate=9_000, read_rate=600).rate == 7_200


def test_cost_is_whole_nodes_times_the_users_prices():
    need = size(10**7, EngineNode(2, 1, 1_000), hours=1)
    assert need.engines == 3
    hours = 10**7 / 1_000 / 3600
    assert need.gpu_hours == pytest.approx(hours)
    assert need.cost(gpu_price=2.0) == pytest.approx(2 * hours)
    assert need.cost(gpu_price=2.0, core_price=0.1) == pytest.approx((2 + 14 * 0.1) * hours)
    priced = lines(need, core_price=None, gpu_price=2.0, source="x")
    assert "5.56" in priced[-1]
    assert priced[:-1] == lines(need, core_price=None, gpu_price=None, source="x")


def test_a_larger_survey_needs_more_of_the_head():
    small, large = (size(n, cpu_node(), hours=20) for n in (10**6, 10**9))
    assert large.head_disk == 1000 * small.head_disk == 250 * 10**9
    assert small.driver < 2**30 < 14 * 2**30 < large.driver < 15 * 2**30
    assert large.object_store == small.object_store


def test_the_handbooks_table_is_what_the_code_says():
    assert "\n".join(table()) in page("guides/kubernetes")


def test_the_rates_are_those_of_the_benchmarks():
    benchmarks = " ".join(page("benchmarks").split())
    for fact in (f"{2 * CORE_RATE:.1f} cutouts/s", "946 MiB", "12,000,000", "250 bytes", "6.7 kB"):
        assert fact in benchmarks


def test_the_drivers_memory_of_a_unit_is_what_the_benchmark_measured_and_the_same_on_every_page():
    row = re.search(r"\| [^|]*?\bms\b[^|]*?(\d+) and (\d+) kB", page("benchmarks"))
    assert row is not None
    measured = [1000 * int(number) for number in row.groups()]
    assert max(measured) <= UNIT_BYTES <= 1.1 * max(measured)
    for name in ("explanation/guarantees", "guides/cluster", "guides/kubernetes"):
        assert f"{UNIT_BYTES / 1e3:.0f} kB" in page(name)
