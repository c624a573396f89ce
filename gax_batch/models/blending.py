"""The blend of the vote fractions of several models: a weighted mean, sharpened and shifted by calibration.

A mean of good forecasts is underconfident (Ranjan & Gneiting 2010, J. R. Stat. Soc. B 72, 71), and networks
trained on clear galaxies are biased toward some answers. One exponent for each question and one offset for
each answer correct both: bias-corrected temperature scaling (Alexandari, Kundaje & Shrikumar 2020, ICML).
This module needs only NumPy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch import gz2
from gax_batch.errors import UsageError
from gax_batch.gz2 import QUESTION_OF

Float = npt.NDArray[np.float32]
# The logarithm of 0 does not exist.
SMALLEST = np.float32(1e-6)


@dataclass(frozen=True, slots=True)
class Blend:
    """A blend of the conditional fractions of several models.

    Attributes:
        weights: Weight of each question by model, float32 `[11]`, non-negative. They sum to 1 over models.
        exponent: float32 `[11]`, positive. Values above 1 move fractions away from the middle.
        offset: float32 `[37]`, added to the logarithms of the conditional fractions.
    """

    weights: Mapping[str, Float]
    exponent: Float
    offset: Float

    @classmethod
    def of(cls, weights: Mapping[str, npt.ArrayLike]) -> "Blend":
        """Return the plain weighted mean."""
        ones, zeros = np.ones(gz2.N_QUESTIONS, np.float32), np.zeros(gz2.N_ANSWERS, np.float32)
        return cls({name: np.asarray(row, np.float32) for name, row in weights.items()}, ones, zeros)

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> "Blend":
        """Read the result of `as_json`. Without exponents and offsets, the blend is the plain mean.

        Raises:
            UsageError: A question or an answer is missing, or a number is not finite.
        """
        plain = cls.of(values["blend"])
        rows = {f"blend of {name}": row for name, row in plain.weights.items()}
        exponent = np.asarray(values.get("exponent", plain.exponent), np.float32)
        offset = np.asarray(values.get("offset", plain.offset), np.float32)
        rows |= {"exponent": exponent, "offset": offset}
        for name, row in rows.items():
            wanted = gz2.N_ANSWERS if name == "offset" else gz2.N_QUESTIONS
            if row.shape != (wanted,) or not np.isfinite(row).all():
                raise UsageError(
                    f"the bundle's calibration has {row.size} values of {name}, not {wanted} finite ones: it "
                    "lacks a question of the tree; use another bundle"
                )
        return cls(plain.weights, exponent, offset)

    def as_json(self) -> dict[str, Any]:
        """Return the blend as nested lists of rounded numbers."""
        weights = {name: [round(float(w), 5) for w in row] for name, row in self.weights.items()}
        others = {"exponent": self.exponent, "offset": self.offset}
        return {"blend": weights} | {n: [round(float(v), 4) for v in row] for n, row in others.items()}

    def __call__(self, predictions: Mapping[str, Float]) -> Float:
        """Blend the fractions of several models.

        Args:
            predictions: Cumulative fractions by model, float32 `[N, 37]`, or `[S, N, 37]` for some models.

        Returns:
            Cumulative fractions, float32 `[N, 37]` or `[S, N, 37]`, as consistent with the tree as the
            inputs.
        """
        mixed = sum(
            self.weights[name][QUESTION_OF] * gz2.conditional(predictions[name])
            for name in sorted(predictions)
        )
        if (self.exponent == 1).all() and not self.offset.any():
            # Results of bundles of earlier releases keep their bits.
            scaled = gz2.conditional(np.asarray(mixed))
        else:
            scaled = scale(np.asarray(mixed), self.exponent, self.offset)
        return np.clip(np.asarray(gz2.cumulative(scaled), np.float32), 0, 1)


def scale(conditional: npt.NDArray[Any], exponent: Float, offset: Float) -> npt.NDArray[Any]:
    """Raise conditional fractions to powers, multiply by `exp` of offsets, and normalize again.

    Args:
        conditional: Conditional fractions, float `[..., 37]`.
        exponent: Exponent of each question, float32 `[11]`.
        offset: Offset of each answer, float32 `[37]`.

    Returns:
        Conditional fractions `[..., 37]`. The answers of each question sum to 1.
    """
    logarithm = exponent[QUESTION_OF] * np.log(np.maximum(conditional, SMALLEST)) + offset
    return gz2.conditional(np.exp(logarithm))
