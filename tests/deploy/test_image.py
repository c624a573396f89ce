"""The Dockerfile, as far as it can be checked without a container engine."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
import ray
import yaml

ROOT = Path(__file__).resolve().parents[2]


def instructions() -> list[tuple[str, str]]:
    """Pairs of an instruction and its arguments, comments left out and continued lines joined."""
    text = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    joined = lines.replace("\\\n", " ").splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined if line.strip())]


def stages() -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            parent, _, name = rest.partition(" AS ")
            found[name] = list(found.get(parent, []))
            current = found[name]
        elif word != "ARG":
            current.append((word, rest))
    return found


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path of the checkout from the build: the last line that fits decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split():
        if line.startswith("#"):
            continue
        pattern = line.lstrip("!").rstrip("/")
        if pattern == "*" or path.rstrip("/") == pattern:
            out = not line.startswith("!")
    return out


def test_every_path_it_copies_exists_and_reaches_the_build():
    copied = [
        shlex.split(rest)[:-1] for word, rest in instructions() if word == "COPY" and "--from" not in rest
    ]
    assert copied
    for path in [path for paths in copied for path in paths]:
        assert (ROOT / path).exists(), path
        assert not ignored(path), path
    assert ignored(".git")
    assert ignored("tests")


def test_everything_the_build_of_the_package_reads_is_copied():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    copied = {path for word, rest in instructions() if word == "COPY" for path in shlex.split(rest)}
    assert {project["readme"], *project["license-files"], "pyproject.toml", "gax_batch/"} <= copied


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_an_image_has_the_installed_package_and_no_root(target):
    steps = stages()[target]
    (copy,) = [rest for word, rest in steps if word == "COPY"]
    assert re.fullmatch(r"--from=(build\S*) /opt/gax /opt/gax", copy)
    assert [rest for word, rest in steps if word == "USER"] == ["1000:1000"]
    assert [rest for word, rest in steps if word == "ENTRYPOINT"] == ['["gax"]']


def test_the_extras_that_it_installs_are_the_packages_own():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installs = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    for install in installs:
        assert "--constraint constraints.txt" in install
        for extra in re.findall(r"\.\[(.*)\]", install)[0].split(","):
            assert extra in project["optional-dependencies"]
    assert "cuda" in installs[-1]


def test_every_cuda_library_is_pinned():
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for name in ("cublas", "cudnn", "cuda-nvcc", "cuda-runtime", "nccl"):
        assert re.search(rf"^nvidia-{name}-cu12==", pinned, re.MULTILINE), name


def test_the_cluster_asks_for_the_ray_that_the_image_has():
    job = yaml.safe_load(
        (ROOT / "deploy" / "kubernetes" / "base" / "rayjob.yaml").read_text(encoding="utf-8")
    )
    version = job["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"ray=={version}" in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert version == ray.__version__
