"""Run the training recipes, which are in the checkout but not in the installed package."""

import os
import subprocess  # runs only this interpreter, on a module of the checkout
import sys
from collections.abc import Sequence
from pathlib import Path

from gax_batch.errors import UsageError

CHECKOUT = Path(__file__).resolve().parents[2]


def train_bundle(data: str, output: str, options: Sequence[str]) -> int:
    """Run `python -m training.build` of the checkout of this package and wait for its end.

    Args:
        data: Folder of the tables of labels.
        output: Folder of the new bundle.
        options: Further options of `training.build`.

    Returns:
        The exit code of the process.

    Raises:
        UsageError: The package was installed without its checkout.
    """
    if not (CHECKOUT / "training" / "build.py").is_file():
        raise UsageError(
            "training is not installed with gax-batch: clone its repository, `make install` there, and use "
            "that gax"
        )
    # PYTHONPATH, not a working directory: the folders are relative to the working directory of the user.
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "training.build", "--data", data, "--output", output, *options]
    return subprocess.run(command, check=False, env=os.environ | {"PYTHONPATH": path}).returncode  # noqa: S603
