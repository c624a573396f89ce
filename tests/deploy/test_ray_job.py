"""The rendered entry point as a job of a real Ray cluster: a head without work, two workers, a token."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from deltalake import DeltaTable
from galaxy_images import write_images
from ray_nodes import BIN, ray_cluster
from waiting import free_port, http_status, wait_for

ROOT = Path(__file__).resolve().parents[2]
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


@contextmanager
def job_cluster() -> Iterator[dict[str, str]]:
    """A head without work that takes jobs, and two workers; yields the environment of who may use it."""
    dashboard = free_port()
    with ray_cluster("--num-cpus", "0", "--dashboard-port", dashboard, workers=2) as (_, environment):
        address = f"http://127.0.0.1:{dashboard}"
        wait_for(lambda: http_status(address) is not None, "the dashboard", seconds=60)
        yield environment | {"RAY_API_SERVER_ADDRESS": address}


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
    with job_cluster() as environment:
        stranger = {key: value for key, value in environment.items() if key != "RAY_AUTH_TOKEN"}
        refused = job_submit(stranger | {"HOME": str(tmp_path)}, "--no-wait", "--", *command)
        assert refused.returncode != 0
        assert "token" in refused.stdout.lower()
        assert job_submit(environment, "--no-wait", "--", *command).returncode == 0
        wait_for(lambda: any(parts.rglob("*.parquet")), "the first part", seconds=240)
    with job_cluster() as environment:
        done = job_submit(environment, "--", *command)
        assert done.returncode == 0, done.stdout
        version = DeltaTable(str(parts)).version()
        again = job_submit(environment, "--", *command)
        assert again.returncode == 0, again.stdout
        assert DeltaTable(str(parts)).version() == version
    kept = re.search(rf"\b(\d+) \w+ {UNITS} units\b", done.stdout)
    assert kept is not None, done.stdout
    assert 0 < int(kept[1]) < UNITS
    ids = DeltaTable(str(parts)).to_pyarrow_table(columns=["galaxy_id"])["galaxy_id"].to_pylist()
    assert len(ids) == len(set(ids)) == 5 * UNITS
