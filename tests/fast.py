"""A pytest plugin for `make test-fast`: keep the tests that take a moment in one process.

Three rules follow from what a test does. It is skipped where it imports a slow package or starts a process,
and left out if it reads the real galaxies. `LONG` names the tests that are left and take longest.
"""

import multiprocessing.process
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import pytest

SLOW = {"hats", "lsdb", "moto", "playwright", "ray", "tensorflow"}
REAL_DATA = "shared_data"
# Files, or tests of a file, that take more than two seconds of a core and have no part that takes less.
LONG = (
    "tests/catalog/test_vacuum.py::test_250_commits_with_aged_logs_and_parts_keep_every_snapshot_of_the_window",
    "tests/planning/test_partition.py",
)


class SlowImports(MetaPathFinder):
    """The first finder: it skips the test that imports one of `SLOW`."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> None:
        if fullname in SLOW:
            pytest.skip(f"imports {fullname}", allow_module_level=True)


class RefusedProcess(subprocess.Popen[Any]):
    """A process that is not started: its test is skipped."""

    def __init__(self, *_: object, **__: object) -> None:
        refuse()


def refuse(*_: object) -> None:
    """Skip the test that starts a process."""
    pytest.skip("starts a process")


def pytest_configure() -> None:
    sys.meta_path.insert(0, SlowImports())


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import the files of `LONG`."""
    return collection_path.relative_to(config.rootpath).as_posix() in LONG or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [
        item
        for item in items
        if item.nodeid.startswith(LONG) or REAL_DATA in getattr(item, "fixturenames", ())
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture(scope="session", autouse=True)
def no_processes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", RefusedProcess)
        patch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
        yield
