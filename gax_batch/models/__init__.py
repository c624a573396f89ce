"""The three networks and their bundle; one module each with `build`, `export_weights` and `Predictor`."""

import os
from typing import Literal

ModelName = Literal["bayesian", "svr", "classic"]
Precision = Literal["auto", "float32", "bfloat16"]

DEFAULT_MODELS: tuple[ModelName, ...] = ("bayesian", "svr")
DEFAULT_DRAWS = 64
"""Draws of the Bayesian CNN, unless another number is asked for."""

DEFAULT_PASSES = 8
"""Passes through the convolutions that carry them, unless another number is asked for."""

# Before anything imports TensorFlow: its start-up notices are not for the person who reads a run's log.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
