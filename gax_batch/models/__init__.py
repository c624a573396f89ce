"""The three networks and their bundle. The networks have `build`, `export_weights` and `Predictor`."""

import os
from typing import Literal

ModelName = Literal["bayesian", "svr", "classic"]
Precision = Literal["auto", "float32", "bfloat16"]

DEFAULT_MODELS: tuple[ModelName, ...] = ("bayesian", "svr")
DEFAULT_DRAWS = 64
"""Default number of draws of the Bayesian CNN."""

DEFAULT_PASSES = 8
"""Default number of passes through the convolutions, which the draws share."""

# Set before anything imports TensorFlow: its start-up notices do not concern a reader of a run's log.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
