"""The command as a user types it: exit codes, one-line errors, output for people and for programs."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest
from galaxy_images import galaxy_image
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from gax_batch import __version__
from gax_batch.cli import app
from gax_batch.gz2 import DEFINITION


def commands(group: Any = get_command(app), names: tuple[str, ...] = ()) -> list[tuple[str, ...]]:  # noqa: B008
    """Every command that there is, by the words that call it."""
    found = []
    for name, command in sorted(group.commands.items()):
        inner = (*names, name)
        found += commands(command, inner) if hasattr(command, "commands") else [inner]
    return found


def gax(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from gax_batch.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_help_with_an_example(command):
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    # The line of the usage, which every command has, is none.
    assert re.search(rf"gax {' '.join(command)}(?! *\[OPTIONS\])", " ".join(result.output.split()))


def test_version():
    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"gax-batch {__version__}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--catalog", "out"], "--input"),
        (["run", "--input", "nowhere", "--catalog", "out"], "nowhere"),
        (["run", "--input", "gopher://x/y", "--catalog", "out"], "gopher"),
        (["run", "--input", "x", "--catalog", "out", "--draws", "1"], "draws"),
        (["run", "--input", "x", "--catalog", "out", "--config", "none.yaml"], "none.yaml"),
        (["run", "--input", ".", "--catalog", "out", "--bundle", "no-bundle"], "no-bundle"),
        (["classify", "nothing.jpg"], "nothing.jpg"),
        (["classify", "/"], "Is a directory"),
        (["run", "--input", "2024", "--catalog", "out"], "2024"),
        (["run", "--input", ".", "--catalog", "out", "--workers", "²"], "workers"),
        (["bundle", "show", "no-bundle"], "no-bundle"),
        (["evaluate", "--labels", "none.csv", "--images", "."], "none.csv"),
        (["evaluate", "--labels", "none.csv"], "--catalog"),
        (["simulate", "--output", "x", "--galaxies", "0"], "galaxies"),
        (["population", "--catalog", "nowhere"], "--catalog"),
        (["population", "--catalog", "nowhere", "--csv", "--json"], "--csv"),
        (["explore", "--catalog", "nowhere"], "--catalog"),
        (["classify", "x.jpg", "--plot", "x.doc"], "x.doc"),
        (["select", "--catalog", "nowhere", "--by", "entropy", "--output", "votes"], "--catalog"),
        (["select", "--catalog", "nowhere", "--by", "etropy", "--output", "votes"], "'entropy'"),
        (["run", "--no-such-flag"], "no-such-flag"),
    ],
)
def test_the_users_mistake_is_exit_code_2_and_writes_nothing(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = gax(*arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_gax_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = gax("run", "--input", "nowhere", "--catalog", "out")
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("gax: ")


def test_a_defect_is_exit_code_4_with_a_traceback(tmp_path, monkeypatch):
    code = """
from gax_batch import cli
from gax_batch.cli import survey
def broken(*_):
    raise RuntimeError("boom")
survey.describe_settings = broken
cli.main()
"""
    command = [sys.executable, "-c", code, "config", "show"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "RuntimeError: boom" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("gax: ")


def test_config_show_prints_every_setting():
    result = CliRunner().invoke(app, ["config", "show"])
    assert result.exit_code == 0
    assert "draws: 64" in result.output
    assert "unit_size: 4096" in result.output


def test_bundle_show_prints_the_model_card():
    text = CliRunner().invoke(app, ["bundle", "show"]).output
    card = json.loads(CliRunner().invoke(app, ["bundle", "show", "--json"]).output)
    assert card["bundle_id"] in text
    assert card["definition"] == DEFINITION.name
    for found in card["metrics"].get("models", {}).values():
        assert f"{found['rmse']:.4f}" in text


def test_classify_gives_trees_json_and_a_picture(tmp_path):
    paths = [tmp_path / "a.jpg", tmp_path / "b.png", tmp_path / "c.jpg"]
    galaxy_image(1, 424).save(paths[0])
    galaxy_image(2, 64).save(paths[1])
    paths[2].write_bytes(b"not an image")
    arguments = ["classify", *map(str, paths), "--draws", "2"]
    done = gax(*arguments, "--json")
    assert done.returncode == 0
    first, second, third = json.loads(done.stdout)
    assert len(first["answers"]) == 37
    assert len(first["questions"]) == 11
    for row in (first, second):
        for answer in row["answers"].values():
            assert 0 <= answer["lo"] <= answer["prob"] <= answer["hi"] <= 1
    assert third == {"image": str(paths[2]), "rejected": "not_an_image", "detail": third["detail"]}
    plot = tmp_path / "trees.png"
    done = CliRunner().invoke(app, [*arguments, "--plot", str(plot)])
    assert done.exit_code == 0, done.output
    trees = done.output.splitlines()
    for fact in ("a.jpg", first["gz2_class"], f"{first['gz2_class_margin']:.2f}"):
        assert fact in trees[0]
    assert any("c.jpg" in line and "not_an_image" in line for line in trees)
    smooth = first["answers"]["t01_smooth_or_features_a01_smooth"]
    (line,) = [line for line in trees[:49] if line.startswith("├ smooth ")]
    assert f"{smooth['prob']:.2f} [{smooth['lo']:.2f}, {smooth['hi']:.2f}]" in line
    bar = line.split()[2]
    assert len(bar) == 40
    assert bar.count("█") == round(40 * smooth["lo"])
    assert len(bar.rstrip("·")) == round(40 * smooth["hi"])
    assert sum("[" in line for line in trees) == 2 * 37
    with Image.open(plot) as picture:
        assert min(picture.size) > 600
