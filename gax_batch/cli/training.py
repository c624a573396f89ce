"""Run the training recipes, which are not part of the installed package but of its checkout."""

import os
import subprocess  # runs only this interpreter, on a module of the checkout
import sys
from collections.abc import Sequence
from pathlib import Path

from gax_batch.errors import UsageError

CHECKOUT = Path(__file__).resolve().parents[2]


def train_bundle(data: str, output: str, options: Sequence[str]) -> int:
    """Run `python -m training.build` of this package's checkout and wait for it.

    Returns:
        Its exit code.

    Raises:
        UsageError: the package was installed without its checkout.
    """
    if not (CHECKOUT / "training" / "build.py").is_file():
        raise UsageError(
            "training is not installed with gax-batch: clone its repository, `make install` there, and use "
            "that gax"
        )
    # By way of the environment, since the folders given are relative to where the user is.
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "training.build", "--data", data, "--output", output, *options]
    return subprocess.run(command, check=False, env=os.environ | {"PYTHONPATH": path}).returncode  # noqa: S603
