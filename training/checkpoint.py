"""Arrays on disk that survive a termination: written to a new safetensors file, then renamed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

Arrays = dict[str, npt.NDArray[Any]]


def save(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Replace the contents of a file by these arrays, in one step."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
    partial.replace(path)


def load(path: Path) -> Arrays | None:
    """Return the arrays of a file, or None if it is missing or damaged, so that the work is done again."""
    try:
        return dict(safetensors.numpy.load(path.read_bytes()))
    except (FileNotFoundError, SafetensorError):
        return None


def model_state(model: Any, optimizer: Any, averages: Sequence[Any], step: int) -> Arrays:
    """Return everything that a training needs to continue after `step` steps."""
    arrays = _numbered("model", model.weights)
    arrays |= _numbered("optimizer", optimizer.variables) | _numbered("average", averages)
    return arrays | {"step": np.array([step])}


def restore(
    model: Any, optimizer: Any, variables: Sequence[Any], averages: Sequence[Any], arrays: Arrays
) -> int:
    """Restore a state, with that of an optimizer of these variables. Return the number of finished steps."""
    optimizer.build(variables)
    for kind, variables in (
        ("model", model.weights),
        ("optimizer", optimizer.variables),
        ("average", averages),
    ):
        saved = sorted(name for name in arrays if name.startswith(f"{kind}/"))
        for variable, name in zip(variables, saved, strict=True):
            variable.assign(arrays[name].reshape(variable.shape))
    return int(arrays["step"][0])


def weights(model: Any) -> Arrays:
    """Return a model's weights in their order, for `set_weights`."""
    return _numbered("weight", model.weights)


def set_weights(model: Any, arrays: Arrays) -> None:
    """Restore the weights that `weights` returned."""
    model.set_weights([arrays[name] for name in sorted(arrays)])


def _numbered(kind: str, variables: Sequence[Any]) -> Arrays:
    return {f"{kind}/{i:04d}": np.asarray(v) for i, v in enumerate(variables)}
