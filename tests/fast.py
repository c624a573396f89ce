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
# What is left and takes long: files whose tests take more than 0.15 s of a core each, most because they make
# whole catalogs, and single tests of more than 1.5 s.
LONG = (
    "tests/analysis/test_combine.py",
    "tests/analysis/test_population.py",
    "tests/analysis/test_selection.py::test_units_of_any_size_give_the_same_galaxies",
    "tests/analysis/test_zooniverse.py",
    "tests/catalog/test_companions.py",
    "tests/catalog/test_compaction.py",
    "tests/catalog/test_concurrency.py",
    "tests/catalog/test_history.py",
    "tests/catalog/test_log.py",
    "tests/catalog/test_vacuum.py",
    "tests/export/test_publication.py",
    "tests/imaging/test_limits.py",
    "tests/planning/test_duplicate_ids.py",
    "tests/planning/test_partition.py",
    "tests/planning/test_plan.py::test_whatever_happens_to_a_survey_each_cutout_is_cataloged_once",
    "tests/planning/test_unchanged_shards.py",
    "tests/runner/test_fingerprint.py",
    "tests/runner/test_pack.py",
    "tests/sources/test_bandfiles.py",
    "tests/sources/test_footprints.py::test_lookups_are_fast_and_take_memory_by_the_frame",
    "tests/sources/test_footprints.py::test_of_many_frames_the_one_with_the_farthest_edge_is_found",
    "tests/sources/test_frame_index.py",
    "tests/sources/test_frames.py",
    "tests/test_layers.py",
    "tests/training/test_calibrate.py",
    "tests/viewer/report",
    "tests/viewer/test_notebook.py",
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
