"""What a visitor of the repository and a package index read: it agrees with the package."""

import tomllib
from pathlib import Path

import yaml

from gax_batch import __version__

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHON = "Programming Language :: Python :: 3."


def test_the_citation_is_of_this_version_and_license():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["license"]


def test_the_workflow_runs_the_pythons_that_the_classifiers_name():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    named = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if name.startswith(PYTHON)]
    assert job["strategy"]["matrix"]["python"] == named
    assert ".ci/run" in [step.get("run") for step in job["steps"]]


def test_the_forms_for_issues_are_complete():
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
    found = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in forms}
    assert set(found) == {"bug", "config", "feature"}
    for name in ("bug", "feature"):
        assert {"name", "description", "body"} <= set(found[name])
        assert all({"type", "id", "attributes"} <= set(part) for part in found[name]["body"])
