"""The three networks and their bundle. The networks have `build`, `export_weights` and `Predictor`."""

import os
from typing import Literal

ModelName = Literal["bayesian", "svr", "classic"]
Precision = Literal["auto", "float32", "bfloat16"]

DEFAULT_MODELS: tuple[ModelName, ...] = ("bayesian", "svr")
DEFAULT_DRAWS = 32
"""Default number of draws of the Bayesian CNN."""

DRAW_SET = 16
"""Draws of one set, in which every orientation occurs twice, with antithetic weights."""
FIRST_DRAWS = 2 * DRAW_SET
"""Minimum number of draws per galaxy: the error of one set cannot be estimated within an orientation."""

# Set before anything imports TensorFlow: its start-up notices do not concern a reader of a run's log.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
