"""The three networks and their bundle; one module each with `build`, `export_weights` and `Predictor`."""

import os
from typing import Literal

ModelName = Literal["bayesian", "svr", "classic"]
Precision = Literal["auto", "float32", "bfloat16"]

# Before anything imports TensorFlow: its start-up notices are not for the person who reads a run's log.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
