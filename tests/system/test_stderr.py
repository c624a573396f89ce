"""Native noise is held back, and shown when something fails."""

import os
import sys
import threading

import pytest

from gax_batch.system.stderr import native_stderr_in, quiet_native_stderr, quiet_threads


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


def test_native_noise_goes_to_a_file_whatever_happens(capfd, tmp_path):
    def broken() -> None:
        with native_stderr_in(tmp_path / "noise.log"):
            os.write(2, b"noise\n")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        broken()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
    assert (tmp_path / "noise.log").read_bytes() == b"noise\n"


def test_a_file_of_no_noise_is_not_left_behind(tmp_path):
    with native_stderr_in(tmp_path / "noise.log"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_threads_that_are_quiet_print_nothing(capsys):
    def noise() -> None:
        print("noise", flush=True)

    quiet, loud = threading.Thread(target=noise), threading.Thread(target=noise)
    with quiet_threads({quiet}):
        print("mine")
        quiet.start()
        quiet.join()
        assert capsys.readouterr().out == "mine\n"
        loud.start()
        loud.join()
    print("after")
    assert capsys.readouterr().out == "noise\nafter\n"
