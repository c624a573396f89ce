"""Who may know whom, checked on what is really imported."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Besides those that the import rules of `pyproject.toml` keep to their rooms.
HEAVY = {
    "hats": {"export/"},
    "lsdb": {"viewer/notebook.py"},
    "starlette": {"viewer/explorer/"},
    "uvicorn": {"viewer/explorer/"},
    "pickle": set[str](),
}


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


# Documented in spite of their names: the hook of Pillow's plugins, arguments of the Kubernetes client.
PUBLIC = {"_open", "_preload_content", "_request_timeout"}


def private_uses(path: Path) -> Iterator[str]:
    """Names of other packages' insides: attributes, modules, arguments and settings that begin with `_`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
            names = [node.attr]
        elif isinstance(node, ast.keyword):
            names = [node.arg or ""]
        elif isinstance(node, ast.Dict):
            names = [k.value for k in node.keys if isinstance(k, ast.Constant) and isinstance(k.value, str)]
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.ImportFrom):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        yield from (name for name in names if name.startswith("_") and not name.startswith("__"))


@pytest.mark.parametrize("root", ["gax_batch", "training"])
def test_nothing_is_used_that_another_package_keeps_private(root):
    files = (ROOT / root).rglob("*.py")
    found = {(path.name, name) for path in files for name in private_uses(path) if name not in PUBLIC}
    assert not found


@pytest.mark.parametrize("module", sorted(HEAVY))
def test_only_its_own_rooms_know(module):
    package = ROOT / "gax_batch"
    knowing = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(name == module or name.startswith(module + ".") for name in imports(path))
    }
    allowed = HEAVY[module]
    strangers = {p for p in knowing if not p.startswith(tuple(allowed))}
    assert not strangers


def loaded_modules(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('\\n'.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_help_loads_neither_tensorflow_nor_ray():
    code = (
        "from typer.testing import CliRunner\n"
        "from gax_batch.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0"
    )
    assert not loaded_modules(code) & {"tensorflow", "ray", "sklearn", "pandas", "pyarrow", "astropy"}


def test_the_driver_of_a_run_does_not_load_tensorflow():
    assert not loaded_modules("import gax_batch.runner.run, gax_batch.cluster.pipeline") & {
        "tensorflow",
        "tf_keras",
        "sklearn",
    }


def test_classifying_loads_neither_ray_nor_what_only_catalogs_need():
    loaded = loaded_modules("import gax_batch.viewer.classify, gax_batch.runner.settings")
    assert not loaded & {"ray", "duckdb", "deltalake", "pandas", "astropy"}


def test_an_engine_does_not_load_keras_and_leaves_it_to_those_who_train():
    loaded = loaded_modules("import gax_batch.models.engine")
    assert not loaded & {"keras", "tf_keras", "matplotlib", "sklearn"}
    assert "tf_keras" in loaded_modules("import gax_batch.models.engine, tf_keras")


def test_files_and_functions_stay_small():
    long: list[str] = []
    for path in [*(ROOT / "gax_batch").rglob("*.py"), *(ROOT / "training").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 400:
            long.append(path.name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                docstring = ast.get_docstring(node)
                size = (
                    (node.end_lineno or 0)
                    - node.lineno
                    + 1
                    - (len(docstring.splitlines()) + 2 if docstring else 0)
                )
                if size > 60:
                    long.append(f"{path.name}:{node.name}")
    assert not long
