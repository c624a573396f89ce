"""A pytest plugin for `make test-fast`: skip each test that imports a slow package or starts a process.

The set follows from what a test does, so that no list has to be kept: a test module that imports such a
package is skipped as a whole, a test that imports it in a function is skipped where it does.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from typing import Any

import pytest

SLOW = {"hats", "lsdb", "moto", "playwright", "ray", "tensorflow"}


class SlowImports(MetaPathFinder):
    """The first finder: it skips the test that imports one of `SLOW`."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: Any = None) -> None:
        if fullname in SLOW:
            pytest.skip(f"imports {fullname}", allow_module_level=True)


class RefusedProcess(subprocess.Popen[Any]):
    """A process that is not started: its test is skipped."""

    def __init__(self, *_: object, **__: object) -> None:
        pytest.skip("starts a process")


def pytest_configure() -> None:
    sys.meta_path.insert(0, SlowImports())


@pytest.fixture(scope="session", autouse=True)
def no_processes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", RefusedProcess)
        yield
