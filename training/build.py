"""Train, calibrate and measure all three models, and write the bundle.

    python -m training.build --data FOLDER --output FOLDER --seed 7

The folder of data is described in `training.data.load`. Finished work is kept in `OUTPUT.work`, so that the
command continues after it was terminated. With `--weights BUNDLE` nothing is trained: the weights of that
bundle are calibrated and measured again. Two trainings with the same seed and data differ only by rounding
errors.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gax_batch.errors import FatalError, UsageError
from gax_batch.system.extras import require_extra

NEEDED = ("sklearn", "tensorflow_probability", "tf_keras")
"""Modules of the extra `training`. The teacher's weights are checked where they are read."""

# Without these, every large tensor is mapped and unmapped at each step, which takes a tenth of the time.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**28),
}


def build(source: Path, output: Path, *, seed: int, effort: float = 1.0, weights: str | None = None) -> str:
    """Train (or use the weights of a bundle), calibrate, measure and write a bundle.

    Args:
        source: Folder of labels and images.
        output: Folder of the bundle. Its name is that of the bundle.
        seed: Seed of all random numbers.
        effort: Factor on the number of training steps.
        weights: Folder of a bundle whose weights are calibrated again; None to train.

    Returns:
        The id of the bundle.

    Raises:
        UsageError: The data are faulty, or the work folder is that of another training.
        FatalError: The training failed.
    """
    from training import assemble, data, networks

    started = time.monotonic()
    work = output.with_name(output.name + ".work")
    work.mkdir(parents=True, exist_ok=True)
    galaxies = data.load(source, work, say)
    if weights is None:
        same_training(work, galaxies.digest(), seed, effort)
        networks.run(networks.Training(galaxies, work, seed, effort, say))
    name = assemble.assemble(galaxies, work, output, seed, weights, say)
    say(f"{name} after {(time.monotonic() - started) / 60:.0f} min")
    return name


def same_training(work: Path, digest: str, seed: int, effort: float) -> None:
    """Refuse to continue a training of other galaxies, labels, seed or recipe."""
    from training.recipe import DENSE, RECIPES

    recipes: dict[str, Any] = {name: asdict(recipe) for name, recipe in RECIPES.items()}
    recipes |= {f"{name}, dense": asdict(recipe) for name, recipe in DENSE.items()}
    settings: dict[str, Any] = {
        "labels_sha256": digest,
        "seed": seed,
        "effort": effort,
        "recipes": recipes,
    }
    text, path = json.dumps(settings, sort_keys=True, indent=1), work / "settings.json"
    if path.exists() and path.read_text() != text:
        raise UsageError(
            f"{work} contains a training of other galaxies, labels, seed or recipe; remove it, or choose "
            "another output"
        )
    path.write_text(text)


def restart_with_allocator(module: str) -> None:
    """Start this process again as `python -m module` with the allocator's settings, if they are missing."""
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        # The allocator reads its settings when a process starts.
        command = [sys.executable, "-m", module, *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | ALLOCATOR | {"TF_CPP_MIN_LOG_LEVEL": "2"})  # noqa: S606


def say(line: str) -> None:
    """Print a line of progress with the time."""
    print(time.strftime("%H:%M:%S"), line, flush=True)


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="Train the models and write a bundle.")
    parser.add_argument("--data", type=Path, required=True, help="folder of tables of labels with images")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of the bundle; its name is that of the bundle"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--effort", type=float, default=1.0, help="factor on the number of training steps")
    parser.add_argument("--weights", help="bundle whose weights are calibrated again instead of training")
    options = parser.parse_args()
    restart_with_allocator("training.build")
    try:
        require_extra("training", "training", *NEEDED)
        from training.train import seed_everything

        seed_everything(options.seed)
        name = build(
            options.data,
            options.output,
            seed=options.seed,
            effort=options.effort,
            weights=options.weights,
        )
    except (UsageError, FatalError) as error:
        print(f"training: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(name)


if __name__ == "__main__":
    main()
