"""Native noise is held back, and shown when something fails."""

import os
import sys

import pytest

from gax_batch.quiet import quiet_native_stderr


def test_native_noise_is_held_back(capfd):
    with quiet_native_stderr():
        os.write(2, b"noise\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_native_noise_is_shown_when_the_block_raises(capfd):
    def broken() -> None:
        with quiet_native_stderr():
            os.write(2, b"noise\n")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        broken()
    assert capfd.readouterr().err == "noise\n"


def test_pythons_own_stderr_stays(capfd, monkeypatch):
    with os.fdopen(os.dup(2), "w", buffering=1) as real:
        monkeypatch.setattr(sys, "stderr", real)
        monkeypatch.setattr(sys, "__stderr__", real)
        with quiet_native_stderr():
            print("mine", file=sys.stderr)
    assert capfd.readouterr().err == "mine\n"
