"""The settings that an entry point would run with, read from its command line."""

import pytest

from gax_batch.cli.operations import run_settings
from gax_batch.errors import UsageError


def test_an_entry_point_is_read_as_the_command_reads_it(tmp_path):
    file = tmp_path / "survey.yaml"
    file.write_text("input: s3://a/b\ncatalog: s3://c/d\nworkers: 2\n")
    settings = run_settings(f"gax run --config '{file}' --workers 4 --engine-gpus 1 --full")
    assert (settings.input, settings.workers, settings.engine_gpus, settings.full) == ("s3://a/b", 4, 1, True)


@pytest.mark.parametrize("command", ["gax plan --input x", "python run.py", "gax run --wrong 1"])
def test_what_cannot_be_read_is_the_users_mistake(command):
    with pytest.raises(UsageError) as error:
        run_settings(command)
    assert command in str(error.value)
