"""Arrays on disk that survive a kill: written beside, then renamed; safetensors, so nothing can run code."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from safetensors import SafetensorError

Arrays = dict[str, npt.NDArray[Any]]


def save(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Replace a file by these arrays, in one step."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
    partial.replace(path)


def load(path: Path) -> Arrays | None:
    """The arrays of a file; None where it is missing or damaged, so that the work is done again."""
    try:
        return dict(safetensors.numpy.load(path.read_bytes()))
    except (FileNotFoundError, SafetensorError):
        return None


def model_state(model: Any, optimizer: Any, step: int) -> Arrays:
    """Everything that a training needs to go on after `step` steps."""
    arrays = {f"model/{i:03d}": w for i, w in enumerate(model.get_weights())}
    arrays |= {f"optimizer/{i:03d}": np.asarray(v) for i, v in enumerate(optimizer.variables)}
    return arrays | {"step": np.array([step])}


def restore(model: Any, optimizer: Any, variables: Sequence[Any], arrays: Arrays) -> int:
    """Put a state back, that of an optimizer of these variables included; the number of steps done."""
    optimizer.build(variables)
    model.set_weights([arrays[k] for k in sorted(arrays) if k.startswith("model/")])
    for variable, name in zip(
        optimizer.variables, sorted(k for k in arrays if k.startswith("optimizer/")), strict=True
    ):
        variable.assign(arrays[name].reshape(variable.shape))
    return int(arrays["step"][0])
