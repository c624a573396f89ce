"""The wheel as a user installs it: in an environment of its own, with nothing but what a run needs."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

import gax_batch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "gax_batch"
GALAXIES = "40"


def run(*command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    # Without PYTHONPATH, which would put this checkout before what is installed.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(word) for word in command], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of the source distribution as `make dist` builds it."""
    folder = tmp_path_factory.mktemp("dist")
    done = run(sys.executable, "-m", "build", "--outdir", folder, folder=ROOT)
    assert done.returncode == 0, done.stderr
    assert (folder / f"gax_batch-{gax_batch.__version__}.tar.gz").is_file()
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of a new environment that holds the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("clean")
    assert run(sys.executable, "-m", "venv", "clean", folder=folder).returncode == 0
    commands = folder / "clean" / "bin"
    constraints = ROOT / "constraints.txt"
    done = run(commands / "python", "-m", "pip", "install", "--constraint", constraints, wheel, folder=folder)
    assert done.returncode == 0, done.stderr
    return commands


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel):
    with ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert packed == {path.relative_to(ROOT).as_posix() for path in files}


def test_the_demo_runs_with_what_a_run_needs(installed, tmp_path):
    done = run(installed / "gax", "demo", "--output", "demo", "--galaxies", GALAXIES, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    count = (
        f"import gax_batch; print(gax_batch.__file__, len(gax_batch.open_catalog({str(tmp_path / 'demo')!r}"
        " + '/catalog')))"
    )
    place, number = run(installed / "python", "-c", count, folder=tmp_path).stdout.split()
    assert number == GALAXIES
    assert not Path(place).is_relative_to(ROOT)


@pytest.mark.parametrize(
    ("extra", "arguments"),
    [
        ("viewer", ["report", "--catalog", "c"]),
        ("export", ["publish", "--catalog", "c", "--format", "hats", "--output", "o"]),
        ("kubernetes", ["submit", "--template", "rayjob/gax-batch"]),
    ],
)
def test_the_extras_are_not_installed_and_named(installed, extra, arguments, tmp_path):
    done = run(installed / "gax", *arguments, folder=tmp_path)
    assert done.returncode == 2
    assert f"pip install 'gax-batch[{extra}]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
