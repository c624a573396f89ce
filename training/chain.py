"""One fold's chain: the CNN-SVR, then the Bayesian and the classic CNN that start from its trunk.

    python -m training.chain --data FOLDER --work FOLDER --fold 0 --seed 7

Every finished step leaves a file below `WORK/fold-0`; a chain that is started again goes on after the
last of them. Fold `all` trains on every galaxy, for the bundle.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch.evaluation.anomalies import anomalies, turned
from gax_batch.inference import Engine
from gax_batch.models import Precision, bayesian, classic, svr
from gax_batch.models.bundle import MODELS, Bundle
from training import calibrate, checkpoint, data, dense, dropout, head, regression, train
from training.checkpoint import Arrays
from training.data import FOLDS, Galaxies
from training.recipe import DENSE, PRETRAINING, RECIPES

DRAWS = 32
# Calibration and numbers are of the networks, not of the arithmetic that this machine is fast at.
PRECISION: Precision = "float32"
EVERYTHING = FOLDS
"""The number of the fold that holds out nothing."""
FEATURE_BLOCK = 4096
# Galaxies of each fold, to see what a turn changes; the draws make it the longest part of a prediction.
TURNED = 48
SEEDS = {"svr": 100, "bayesian": 200, "classic": 300}


@dataclass(frozen=True, slots=True)
class Chain:
    """What a chain works on.

    Attributes:
        galaxies: all of them.
        fold: held out; `EVERYTHING` for none.
        work: folder of the whole training.
        seed: of the whole training.
        effort: factor on the steps of every recipe.
        say: called with lines of progress.
    """

    galaxies: Galaxies
    fold: int
    work: Path
    seed: int
    effort: float = 1.0
    say: Callable[[str], None] = print

    @property
    def folder(self) -> Path:
        """Of this chain's files."""
        return self.work / f"fold-{self.fold if self.fold < FOLDS else 'all'}"

    @property
    def training_rows(self) -> npt.NDArray[np.intp]:
        """The galaxies to learn from."""
        return np.flatnonzero(self.galaxies.folds != self.fold)

    @property
    def held_out_rows(self) -> npt.NDArray[np.intp]:
        """The galaxies to predict."""
        return np.flatnonzero(self.galaxies.folds == self.fold)


def run(chain: Chain) -> None:
    """Train, fit the regressions and predict what was held out; steps done before are skipped."""
    arrays = export(chain, networks(chain, "bayesian", "classic"))
    if chain.fold != EVERYTHING:
        _predict(chain, arrays)


def networks(chain: Chain, *others: str) -> dict[str, Any]:
    """The CNN-SVR's network, and others that start from its trunk, trained unless they were already."""
    chain.folder.mkdir(parents=True, exist_ok=True)
    trunk = _network(chain, "svr", None)
    return {"svr": trunk} | {name: _network(chain, name, trunk) for name in others}


def pretrained(work: Path, seed: int, effort: float, say: Callable[[str], None] = print) -> Any:
    """A trunk, trained on simulated galaxies, whose true fractions are known, unless it was already.

    It knows no label of any real galaxy, so that all folds may start from it.
    """
    path, model = work / "pretrained.safetensors", svr.build(seed)
    if (saved := checkpoint.load(path)) is not None:
        model.set_weights([saved[key] for key in sorted(saved)])
        return model
    say("pretraining on simulated galaxies")
    galaxies = data.simulated(PRETRAINING.galaxies, seed)
    batches = train.Batches(np.arange(len(galaxies)), np.empty(0, np.intp), seed)
    recipe = PRETRAINING.recipe.scaled(effort)
    state = work / "pretraining.state"
    train.fit(model, galaxies, batches, recipe, state=state, say=say)
    checkpoint.save(path, weights(model))
    state.unlink(missing_ok=True)
    return model


def export(chain: Chain, models: dict[str, Any]) -> dict[str, Arrays]:
    """All arrays of a bundle, with the regressions fitted on the training galaxies' features."""
    path = chain.folder / "regressions.safetensors"
    arrays: dict[str, Arrays] = {
        "bayesian": bayesian.export_weights(models["bayesian"]),
        "classic": classic.export_weights(models["classic"]),
        "svr": svr.export_weights(models["svr"]),
    }
    regressions = checkpoint.load(path)
    if regressions is None:
        rows = chain.training_rows
        labels = chain.galaxies.labels.take(rows)
        everything = _features(chain, arrays["svr"])
        inputs = everything[rows]
        targets = regression.targets(inputs, models["svr"], labels)
        regressions, record = regression.fit(inputs, targets, labels.voted)
        regressions |= {f"record/{key}": np.array([value]) for key, value in record.items()}
        checkpoint.save(path, regressions)
        chain.say(f"regressions: {record}")
    arrays["svr"] |= {k: v for k, v in regressions.items() if k.startswith("svr/")}
    for name, values in arrays.items():
        checkpoint.save(chain.folder / f"export-{name}.safetensors", values)
    return arrays


def _features(chain: Chain, arrays: Arrays) -> npt.NDArray[np.float32]:
    """The pooled features of all galaxies by this chain's CNN-SVR; kept for the nearest neighbors."""
    path = chain.folder / "features.safetensors"
    if (saved := checkpoint.load(path)) is not None:
        return np.asarray(saved["features"], np.float32)
    blocks = np.array_split(np.arange(len(chain.galaxies)), max(1, len(chain.galaxies) // FEATURE_BLOCK))
    values = [regression.features(arrays, chain.galaxies.cutouts(block)) for block in blocks]
    result = np.concatenate(values)
    checkpoint.save(path, {"features": result})
    return result


def _network(chain: Chain, name: str, trunk: Any) -> Any:
    seed = chain.seed + SEEDS[name]
    model = train.BUILDERS[name](seed)
    path = chain.folder / f"{name}.safetensors"
    if (saved := checkpoint.load(path)) is not None:
        model.set_weights([saved[key] for key in sorted(saved)])
        return model
    if trunk is not None:
        train.start_from(model, trunk)
    else:
        first = pretrained(chain.work, chain.seed, chain.effort, chain.say)
        model.set_weights(first.get_weights())
    state = chain.folder / f"{name}.state"
    if name in RECIPES:
        _train_trunk(chain, model, seed, state)
    labels = chain.galaxies.labels.take(chain.training_rows)
    views = head.features_of(model, chain.galaxies.cutouts(chain.training_rows))
    if name == "svr":
        # It averages its features over rotations, the other two what comes of them.
        train.set_kernel(model.get_layer("logits"), *head.solve(views.mean(axis=0), labels))
    else:
        dense.fit(model, views, labels, DENSE[name].scaled(chain.effort), seed, chain.say)
    checkpoint.save(path, weights(model))
    state.unlink(missing_ok=True)
    return model


def _train_trunk(chain: Chain, model: Any, seed: int, state: Path) -> None:
    labels, rows = chain.galaxies.labels, chain.training_rows
    voted, known = labels.voted[rows], labels.classes[rows] >= 0
    batches = train.Batches(rows[voted], rows[known & ~voted], seed)
    recipe, logs = RECIPES[model.name].scaled(chain.effort), chain.folder / "logs" / model.name
    train.fit(model, chain.galaxies, batches, recipe, state=state, logs=logs, say=chain.say)


def weights(model: Any) -> Arrays:
    """A model's weights in their order, which `sorted` gives back."""
    return {f"{i:03d}": weight for i, weight in enumerate(model.get_weights())}


def _predict(chain: Chain, arrays: dict[str, Arrays]) -> None:
    path = chain.folder / "predictions.safetensors"
    if checkpoint.load(path) is not None:
        return
    bundle = Bundle("fold", {"seed": chain.seed, "calibration": calibrate.neutral()}, arrays)
    engine = Engine(bundle, models=MODELS, draws=DRAWS, precision=PRECISION, threads=1)
    cutouts = chain.galaxies.cutouts(chain.held_out_rows)
    chain.say(f"predicting {len(cutouts)} galaxies")
    outputs = engine.outputs(cutouts)
    for name, values in engine.outputs(turned(cutouts[:TURNED])).items():
        # As many rows as galaxies, those that were not turned being NaN.
        axis = values.ndim - 2 if values.ndim == 3 else 0
        rim = [(0, 0)] * values.ndim
        rim[axis] = (0, len(cutouts) - values.shape[axis])
        outputs[f"turned/{name}"] = np.pad(values, rim, constant_values=np.nan)
    engine = Engine(bundle, models=("svr",), precision=PRECISION, threads=1)
    for name, images in anomalies(cutouts, chain.seed).items():
        outputs[f"anomaly/{name}"] = engine.outputs(images)["closeness"]
    outputs["dropout"] = dropout.draws(arrays["classic"], cutouts, DRAWS, chain.seed)
    checkpoint.save(path, outputs)


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="Train one fold.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--fold", required=True, help="0 to 4, all or pretrain")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--effort", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    train.make_deterministic(options.seed, options.threads)

    def say(line: str) -> None:
        print(f"fold {options.fold}: {line}", flush=True)

    if options.fold == "pretrain":
        options.work.mkdir(parents=True, exist_ok=True)
        pretrained(options.work, options.seed, options.effort, say)
        return
    galaxies = data.load(options.data, options.work, lambda _: None)
    fold = EVERYTHING if options.fold == "all" else int(options.fold)
    run(Chain(galaxies, fold, options.work, options.seed, options.effort, say))


if __name__ == "__main__":
    main()
