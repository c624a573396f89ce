"""What is declared as a dependency is what is imported, and a missing extra is one line."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gax_batch.errors import UsageError
from gax_batch.system.extras import require_extra

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# The rooms that may import an extra's packages; functions of `models` build the networks of a training.
ROOMS = {
    "viewer": ("gax_batch/viewer/",),
    "export": ("gax_batch/export/", "gax_batch/viewer/notebook.py"),
    "kubernetes": ("gax_batch/cluster/kubernetes/api.py",),
    "training": ("gax_batch/models/", "training/"),
}
# They come with a package that is declared: Pydantic, Delta Lake.
BROUGHT = {"pydantic_core"}
# Each is run where the modules cannot be imported.
COMMANDS = [
    ("viewer", ["report", "--catalog", "c"], "matplotlib"),
    ("viewer", ["explore", "--catalog", "c"], "starlette"),
    ("viewer", ["explore", "--catalog", "c"], "uvicorn"),
    ("viewer", ["classify", "a.jpg", "--plot", "a.png"], "matplotlib"),
    ("export", ["publish", "--catalog", "c", "--format", "hats", "--output", "o"], "hats"),
    ("kubernetes", ["submit", "--template", "rayjob/gax-batch"], "kubernetes"),
    ("training", ["train", "--data", "d", "--output", "o"], "tf_keras"),
    ("training", ["train", "--data", "d", "--output", "o"], "sklearn"),
]


def declared(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def imported(path: Path) -> Iterator[str]:
    """Top-level names of the packages that a module imports from outside."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        yield from {name.partition(".")[0] for name in names} - sys.stdlib_module_names - BROUGHT


@pytest.mark.parametrize("root", ["gax_batch", "training"])
def test_every_package_that_is_imported_is_declared_for_its_room(root):
    distributions = packages_distributions()
    needed = declared(PROJECT["dependencies"])
    strangers = set()
    for path in (ROOT / root).rglob("*.py"):
        place = path.relative_to(ROOT).as_posix()
        allowed = needed.union(
            *(declared(EXTRAS[e]) for e, rooms in ROOMS.items() if place.startswith(rooms))
        )
        for name in imported(path):
            owners = {canonicalize_name(owner) for owner in distributions.get(name, [name])}
            if name not in ("gax_batch", "training") and not owners & allowed:
                strangers.add((place, name))
    assert not strangers


def test_all_has_every_extra_but_cuda_and_the_tools():
    (everything,) = map(Requirement, EXTRAS["all"])
    assert everything.extras | {"all", "cuda", "dev"} == set(EXTRAS) - {"docs"}


@pytest.mark.parametrize(("extra", "arguments", "module"), COMMANDS)
def test_a_command_without_its_extra_is_one_line(extra, arguments, module, tmp_path):
    # A new interpreter imports sitecustomize first: the command may start one, as `gax train` does.
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{module!r}] = None\n")
    done = subprocess.run(
        [sys.executable, "-c", "from gax_batch.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert module.replace("_", "-") in line
    assert f"pip install 'gax-batch[{extra}]'" in line


def test_only_what_is_missing_is_named():
    require_extra("viewer", "this", "json")
    with pytest.raises(UsageError, match=r"this needs not-here.*'gax-batch\[viewer\]'") as raised:
        require_extra("viewer", "this", "json", "not_here")
    assert "json" not in str(raised.value)
