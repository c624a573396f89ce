"""Train, calibrate and evaluate all three models in five folds, and write the bundle.

    python -m training.build --data FOLDER --output FOLDER --seed 7

For the folder of data see `training.data.find_tables`. Work that is done is kept in `OUTPUT.work`: the
command goes on after a kill, and the last good weights are never overwritten by worse ones. With the
same seed, data, versions and machine the bundle is the same.
"""

import argparse
import json
import os
import subprocess  # runs only this interpreter, on modules of this package
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gax_batch.errors import FatalError, UsageError
from training import assemble, data
from training.data import FOLDS, Galaxies
from training.recipe import DENSE, LITERAL, MEMBER_EFFORT, PRETRAINING, RECIPES

# Without these every large tensor is mapped and unmapped at each step: a tenth of the time.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**28),
}


def build(source: Path, output: Path, *, seed: int, effort: float, workers: int, baselines: bool) -> str:
    """The whole training.

    Args:
        source: folder of labels and images.
        output: the bundle's folder; its name is the bundle's.
        seed: of everything.
        effort: factor on the number of training steps.
        workers: chains at once, one core each.
        baselines: also train and measure what the networks are compared with.

    Returns:
        The bundle's id.

    Raises:
        UsageError: bad data, or a work folder of another training.
        FatalError: a chain failed.
    """
    started = time.monotonic()
    work = output.with_name(output.name + ".work")
    work.mkdir(parents=True, exist_ok=True)
    galaxies = data.load(source, work, _say)
    _same_training(work, galaxies, seed, effort)
    common = ["--data", str(source), "--work", str(work), "--seed", str(seed), "--effort", str(effort)]
    _run("training.chain", [*common, "--fold", "pretrain", "--threads", str(workers)], workers)
    jobs = [("training.chain", [*common, "--fold", fold]) for fold in ("all", *map(str, range(FOLDS)))]
    if baselines:
        # The longer ones first, so that the shorter ones fill the last worker's time.
        each = [(name, fold) for name in ("ensemble", "literal") for fold in map(str, range(FOLDS))]
        jobs += [("training.baselines", [*common, "--fold", fold, "--train", name]) for name, fold in each]
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(_run, module, arguments, 1) for module, arguments in jobs]
        for number, future in enumerate(futures, 1):
            future.result()
            minutes = (time.monotonic() - started) / 60
            left = minutes / number * (len(jobs) - number)
            _say(f"{number} of {len(jobs)} chains done after {minutes:.0f} min; about {left:.0f} min left")
    return assemble.assemble(galaxies, work, output, seed, _say)


def _same_training(work: Path, galaxies: Galaxies, seed: int, effort: float) -> None:
    """Refuse to go on with a training of other galaxies, labels, seed or recipe."""
    recipes: dict[str, Any] = {name: asdict(recipe) for name, recipe in RECIPES.items()}
    recipes |= {f"{name}, dense": asdict(recipe) for name, recipe in DENSE.items()}
    recipes |= {"literal": asdict(LITERAL), "pretraining": asdict(PRETRAINING)}
    settings: dict[str, Any] = {
        "labels_sha256": galaxies.digest(),
        "seed": seed,
        "effort": effort,
        "member_effort": MEMBER_EFFORT,
        "recipes": recipes,
    }
    text, path = json.dumps(settings, sort_keys=True, indent=1), work / "settings.json"
    if path.exists() and path.read_text() != text:
        raise UsageError(
            f"{work} holds a training of other galaxies, labels, seed or recipe; remove it, or choose "
            "another output"
        )
    path.write_text(text)


def _run(module: str, arguments: list[str], threads: int) -> None:
    environment = os.environ | ALLOCATOR | {"OMP_NUM_THREADS": str(threads), "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=environment, check=False)  # noqa: S603
    if done.returncode:
        raise FatalError(
            f"{module} {' '.join(arguments[-2:])} ended with {done.returncode}; its own words are above, and "
            "the same command goes on where it stopped"
        )


def _say(line: str) -> None:
    print(line, flush=True)


def main(run: Callable[..., str] = build) -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="Train the models and write a bundle.")
    parser.add_argument("--data", type=Path, required=True, help="folder of tables of labels with images")
    parser.add_argument(
        "--output", type=Path, required=True, help="the bundle's folder; its name is the bundle's"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--effort", type=float, default=1.0, help="factor on the training steps")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="folds at once")
    parser.add_argument("--baselines", action="store_true", help="also train the baselines (longer)")
    options = parser.parse_args()
    try:
        name = run(
            options.data,
            options.output,
            seed=options.seed,
            effort=options.effort,
            workers=options.workers,
            baselines=options.baselines,
        )
    except (UsageError, FatalError) as error:
        print(f"training: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    _say(name)


if __name__ == "__main__":
    main()
