"""A cluster whose machines go: raylets one after the other, and the head; a full object store."""

import re
import signal
import time
from contextlib import ExitStack

import psutil
import pytest
from faults.nodes import cluster, hosts
from faults.survey import parts
from ray_nodes import kill_tree
from waiting import wait_for

pytestmark = pytest.mark.slow

WORKERS = 3
UNITS = 24
# How soon a node that does not answer is given up.
IMPATIENCE = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
    # By default, whose connection is not closed but cut is noticed after seven minutes.
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
}
# How long a process waits for a head that is gone.
PATIENCE = {"RAY_gcs_rpc_server_reconnect_timeout_s": "15", "RAY_gcs_server_request_timeout_seconds": "15"}


def raylets(process) -> list[psutil.Process]:
    """The raylet of a node."""
    return [
        child for child in psutil.Process(process.pid).children(recursive=True) if child.name() == "raylet"
    ]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_raylets_go_one_after_the_other(make_survey, how):
    survey = make_survey(5 * UNITS, workers=2)
    with cluster(WORKERS, {"GAX_FAULTS": str(survey.folder)}) as nodes:
        run = survey.start(environment=nodes.environment, seconds=0.5)
        killed, since = 0, 0.0
        for stored in (2, 8, 14):
            wait_for(lambda stored=stored: parts(survey.catalog) >= stored, "parts", seconds=300)
            victim = nodes.workers.pop(0)
            # A machine that is taken away kills all at once; one that is shut down tells the node's process.
            wait_for(lambda victim=victim: bool(raylets(victim)), "the raylet")
            told = raylets(victim) if how == signal.SIGKILL else [victim]
            for process in told:
                process.send_signal(how)
                killed, since = killed + 1, time.time()
            nodes.add_worker()
        said, errors = run.communicate(timeout=500)
        assert run.returncode == 0, said[-2000:] + errors[-3000:]
    assert survey.rejects() == {}
    survey.balance(f"{how.name} of a raylet of three", killed, since)


def test_hosts_are_cut_off_from_the_network(make_survey):
    survey = make_survey(5 * UNITS, workers=2)
    with ExitStack() as stack:
        try:
            ip, there = stack.enter_context(hosts(WORKERS))
        except OSError as error:
            pytest.skip(f"no network namespaces here: {error}")
        extra = {"GAX_FAULTS": str(survey.folder)} | IMPATIENCE
        nodes = stack.enter_context(cluster(0, extra, ip))
        for host in there:
            nodes.add_worker(host)
        process = survey.start(environment=nodes.environment, seconds=0.5)
        cut, since = 0, 0.0
        # One of three is enough to end it.
        for stored, host in zip((2, 8), there, strict=False):
            wait_for(lambda stored=stored: parts(survey.catalog) >= stored, "parts", seconds=300)
            host.pull_cable()
            cut, since = cut + 1, time.time()
        said, errors = process.communicate(timeout=500)
        assert process.returncode == 0, said[-2000:] + errors[-3000:]
    assert survey.rejects() == {}
    survey.balance("host of three cut off from the network", cut, since)


def test_the_head_is_killed(make_survey):
    survey = make_survey(5 * UNITS, workers=2)
    with cluster(2, {"GAX_FAULTS": str(survey.folder)} | PATIENCE) as nodes:
        process = survey.start(environment=nodes.environment, seconds=0.5)
        wait_for(lambda: parts(survey.catalog) >= 4, "parts", seconds=300)
        kill_tree(nodes.head)
        since = time.time()
        # The run ends by itself, whatever Ray says.
        process.communicate(timeout=240)
        assert process.returncode != 0
    kept = parts(survey.catalog)
    assert 4 <= kept < UNITS
    assert re.search(rf"\b{kept} \w+ {UNITS}\b", survey.succeed(ray=False))
    survey.balance("SIGKILL of the head", 1, since)


def test_the_object_store_is_full_and_spills(make_survey):
    survey = make_survey(40, unit_size=10, object_store_mib=80)
    since = time.time()
    survey.succeed(ballast=6)
    ((_, told),) = survey.strikes()
    assert re.search(r"[1-9]\d* files spilled", told), told
    survey.balance("full object store, 20 MiB objects spilled", 6, since)
