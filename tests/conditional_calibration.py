"""A bundle with intervals of conditional fractions, and parts of a catalog that it made."""

from typing import Any

import numpy as np
from labeled_galaxies import random_fractions
from published_catalogs import PER_PART, write_part

from gax_batch import gz2
from gax_batch.catalog.parts import Part
from gax_batch.models.bundle import Bundle
from gax_batch.models.predictive import GRID, GROUPS, Predictive
from gax_batch.models.uncertainty import INTERVAL, Calibration, combination_name

DEFAULT = ("bayesian", "svr")
CHOICES = (DEFAULT, ("bayesian",), ("svr",))


def calibrated_bundle(*, conditional: bool = True) -> Bundle:
    """A bundle without arrays, whose intervals are the wider, the later its models stand in `CHOICES`."""
    combinations: dict[str, Any] = {}
    for number, models in enumerate(CHOICES, 1):
        scale = np.tile(np.array([0.001, 0.02, 1], np.float32) * number, (gz2.N_QUESTIONS, 1))
        reach = np.linspace(-2, 2, len(GRID), dtype=np.float32)
        fitted = Predictive(scale, np.tile(reach, (gz2.N_QUESTIONS, *GROUPS, 1))).as_json()
        blend = {name: [1 / len(models)] * gz2.N_QUESTIONS for name in models}
        combinations[combination_name(models)] = {"blend": blend, **fitted}
        if conditional:
            combinations[combination_name(models)]["conditional"] = fitted
    values = {"ood_threshold": 0.9, "combinations": combinations}
    return Bundle("known-1", {"calibration": values, "definition": "debiased"}, {})


def calibration(models: tuple[str, ...] = DEFAULT) -> Calibration:
    """The bundle's for a choice of models."""
    return Calibration.of_bundle(calibrated_bundle().manifest["calibration"], models)


def write_calibrated_part(catalog: str, number: int, models: tuple[str, ...] = DEFAULT) -> Part:
    """A part that the bundle made; the CNN-SVR alone has no spread."""
    prob = random_fractions(PER_PART, seed=number)
    std = 0.2 * prob * (1 - prob) if "bayesian" in models else np.full_like(prob, np.nan)
    lo, hi = calibration(models).predictive.interval(prob, std, INTERVAL)
    kinds = {"prob": prob, "std": std, "lo": lo, "hi": hi}
    given = {
        f"{name}_{kind}": values[:, i] for kind, values in kinds.items() for i, name in enumerate(gz2.ANSWERS)
    }
    return write_part(catalog, number, bundle_id="known-1", **given)
