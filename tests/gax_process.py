"""The command `gax` as a process, and the address of `gax explore` while it runs."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 300
START_SECONDS = 120
GAX = (sys.executable, "-c", "from gax_batch.cli import main; main()")


def gax(*words: str, folder: Path) -> str:
    """Run the command to its end; what it printed."""
    done = subprocess.run(
        [*GAX, *words], cwd=folder, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 0, f"gax {shlex.join(words)}: {done.stderr}"
    return done.stdout


@contextmanager
def explored(catalog: str, folder: Path) -> Iterator[str]:
    """The address that `gax explore` prints, while it runs."""
    process = subprocess.Popen(
        [*GAX, "explore", "--catalog", catalog, "--port", "0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        found = re.search(r"http://[\d.:]+/", process.stdout.readline())
        assert found is not None
        yield found[0]
    finally:
        process.terminate()
        assert process.wait(START_SECONDS) in (0, -15)
        process.stdout.close()
