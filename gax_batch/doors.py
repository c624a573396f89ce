"""The way from the command to what is not part of the installed package: the training recipes."""

import importlib.util
import subprocess  # runs only this interpreter, on a module of the checkout
import sys
from collections.abc import Sequence

from gax_batch.errors import UsageError


def train_bundle(data: str, output: str, options: Sequence[str]) -> int:
    """Run `python -m training.build` and wait for it.

    Returns:
        Its exit code.

    Raises:
        UsageError: the package was installed without its checkout.
    """
    if importlib.util.find_spec("training") is None:
        raise UsageError("training is not installed with gax-batch: run this in a checkout of its repository")
    command = [sys.executable, "-m", "training.build", "--data", data, "--output", output, *options]
    return subprocess.run(command, check=False).returncode  # noqa: S603
