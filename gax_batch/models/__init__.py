"""The three networks and their bundle; one module each with `build`, `export_weights` and `Predictor`."""

import os
from typing import Literal

ModelName = Literal["bayesian", "svr", "classic"]
Precision = Literal["auto", "float32", "bfloat16"]

DEFAULT_MODELS: tuple[ModelName, ...] = ("bayesian", "svr")
DEFAULT_DRAWS = 32
"""Draws of the Bayesian CNN, unless another number is asked for."""

DRAW_SET = 16
"""Draws of the Bayesian CNN that see all orientations, each twice: by antithetic weights."""
FIRST_DRAWS = 2 * DRAW_SET
"""Draws that every galaxy gets: one set has no scatter within an orientation to tell its error by."""

# Before anything imports TensorFlow: its start-up notices are not for the person who reads a run's log.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
