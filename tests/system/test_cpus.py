"""CPUs by affinity, and by quotas of control groups of both versions."""

import os
from pathlib import Path

import pytest

from gax_batch.system import cpus
from gax_batch.system.machine import local_resources


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of control groups, on a machine of 64 CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(cpus, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(cpus, "_MEMBERSHIPS", tmp_path / "cgroup")
    return tmp_path / "groups"


def write(groups: Path, memberships: str, **files: str) -> None:
    (groups.parent / "cgroup").write_text(memberships)
    for name, text in files.items():
        path = groups / name.replace("__", "/").replace("cpu_max", "cpu.max").replace("cpu_cfs", "cpu.cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("memberships", "files", "expected"),
    [
        ("0::/\n", {"cpu_max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu_max": "250000 100000\n"}, 3),
        ("0::/\n", {"cpu_max": "1000 100000\n"}, 1),
        ("0::/\n", {"cpu_max": "max 100000\n"}, 64),
        ("0::/\n", {}, 64),
        ("0::/pods/one\n", {"pods__cpu_max": "400000 100000", "pods__one__cpu_max": "max 100000"}, 4),
        ("0::/hosts/path\n", {"cpu_max": "300000 100000"}, 3),
        (
            "4:cpu,cpuacct:/\n0::/\n",
            {"cpu__cpu_cfs_quota_us": "500000", "cpu__cpu_cfs_period_us": "100000"},
            5,
        ),
        ("1:cpu:/\n", {"cpu__cpu_cfs_quota_us": "-1", "cpu__cpu_cfs_period_us": "100000"}, 64),
        ("3:cpuset:/\n", {"cpu__cpu_cfs_quota_us": "100000", "cpu__cpu_cfs_period_us": "100000"}, 64),
    ],
)
def test_a_quota_bounds_the_cpus(
    groups: Path, memberships: str, files: dict[str, str], expected: int
) -> None:
    write(groups, memberships, **files)
    assert cpus.logical_cpus() == expected
    assert (
        local_resources(cpus="auto", workers="auto", object_store_mib="auto", unit_size=64).cpus == expected
    )


def test_without_control_groups_the_affinity_counts(groups: Path) -> None:
    assert cpus.logical_cpus() == 64
