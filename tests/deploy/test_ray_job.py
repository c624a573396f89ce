"""The rendered entry point as a job of a real Ray cluster: a head without work, two workers, a token."""

import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
import yaml
from deltalake import DeltaTable
from fakes import write_images

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
UNITS = 12

pytestmark = pytest.mark.slow


def entry_point(config: Path) -> list[str]:
    """The cpu overlay's command, for a configuration elsewhere and nodes of one core."""
    operations = yaml.safe_load((ROOT / "deploy/kubernetes/overlays/cpu/kustomization.yaml").read_text())
    (patch,) = operations["patches"]
    command = next(p["value"] for p in yaml.safe_load(patch["patch"]) if p["path"] == "/spec/entrypoint")
    command = command.replace("/etc/gax/survey.yaml", str(config))
    command = re.sub(r"--(workers|engine-cpus) \d+", r"--\1 1", command)
    # In the image it is on the PATH.
    return [str(BIN / "gax"), *command.split()[1:]]


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@contextmanager
def ray_node(environment: dict[str, str], *arguments: str) -> Iterator[None]:
    command = [BIN / "ray", "start", "--block", "--disable-usage-stats", *arguments]
    command += ["--object-store-memory", "150000000", "--dashboard-agent-listen-port", free_port()]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        # As a node ends that is taken away: nothing is asked, nothing said.
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for member in family:
            if member.is_running():
                member.kill()
        process.wait()
        psutil.wait_procs(family, timeout=30)


@contextmanager
def ray_cluster() -> Iterator[dict[str, str]]:
    """A head and two workers of one core each; yields the environment of who may use it."""
    gcs, dashboard = free_port(), free_port()
    address = f"127.0.0.1:{gcs}"
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment.pop("RAY_ADDRESS", None)
    with ExitStack() as nodes:
        # The paths of Ray's sockets must be short.
        folder = nodes.enter_context(tempfile.TemporaryDirectory(prefix="gax", ignore_cleanup_errors=True))
        head = ["--head", "--port", gcs, "--dashboard-port", dashboard, "--num-cpus", "0"]
        nodes.enter_context(
            ray_node(environment, *head, "--temp-dir", folder, "--ray-client-server-port", free_port())
        )
        wait_for(lambda: answers(int(gcs)) and answers(int(dashboard)), "the head", seconds=60)
        for _ in range(2):
            nodes.enter_context(ray_node(environment, "--address", address, "--num-cpus", "1"))
        yield environment | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition, what: str, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what} did not come within {seconds} s"
        time.sleep(0.05)


def job_submit(environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [BIN / "ray", "job", "submit", "--address", environment["RAY_API_SERVER_ADDRESS"], *arguments]
    return subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_job_whose_cluster_died_is_finished_by_the_next(tmp_path):
    write_images(tmp_path / "images", 5 * UNITS)
    settings = {"input": str(tmp_path / "images"), "catalog": str(tmp_path / "catalog")}
    (tmp_path / "survey.yaml").write_text(yaml.safe_dump(settings | {"unit_size": 5, "draws": 8}))
    command = entry_point(tmp_path / "survey.yaml")
    parts = tmp_path / "catalog" / "galaxies"
    with ray_cluster() as environment:
        stranger = {key: value for key, value in environment.items() if key != "RAY_AUTH_TOKEN"}
        refused = job_submit(stranger | {"HOME": str(tmp_path)}, "--no-wait", "--", *command)
        assert refused.returncode != 0
        assert "token" in refused.stdout.lower()
        assert job_submit(environment, "--no-wait", "--", *command).returncode == 0
        wait_for(lambda: any(parts.rglob("*.parquet")), "the first part", seconds=240)
    with ray_cluster() as environment:
        done = job_submit(environment, "--", *command)
        assert done.returncode == 0, done.stdout
        again = job_submit(environment, "--", *command)
        assert again.returncode == 0, again.stdout
    kept = re.search(rf"(\d+) of {UNITS} units were finished by an interrupted run", done.stdout)
    assert kept is not None, done.stdout
    assert 0 < int(kept[1]) < UNITS
    assert "nothing to do" in again.stdout
    ids = DeltaTable(str(parts)).to_pyarrow_table(columns=["galaxy_id"])["galaxy_id"].to_pylist()
    assert len(ids) == len(set(ids)) == 5 * UNITS
