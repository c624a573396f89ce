"""The conditional fractions of a catalog's galaxies and their intervals, from its columns and its bundle.

A catalog does not store them: they are a function of `_prob` and `_std`, and of the bundle's calibration.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gax_batch import gz2
from gax_batch.catalog.schema import CONDITIONAL_COLUMNS
from gax_batch.errors import UsageError
from gax_batch.models.bundle import Bundle
from gax_batch.models.predictive import Predictive
from gax_batch.models.uncertainty import INTERVAL, Calibration

Float = npt.NDArray[np.float32]
# Try the blend that runs by default first.
_DEFAULT = "bayesian+svr"
# Intervals of a catalog may differ by rounding from those computed again from its columns.
_EQUAL = 1e-4
_FIRST = gz2.QUESTIONS[0]
NAMES: tuple[str, ...] = tuple(column.name for column in CONDITIONAL_COLUMNS)
"""The columns that `Conditional.add_to` adds."""

NEEDED: tuple[str, ...] = (
    "bundle_id",
    *(f"{answer}_{kind}" for kind in ("prob", "std") for answer in gz2.ANSWERS),
    *(f"{answer}_{kind}" for kind in ("lo", "hi") for answer in gz2.ANSWERS[_FIRST.columns]),
)
"""The columns of a catalog that it reads."""


@dataclass(frozen=True, slots=True)
class Conditional:
    """The calibration of conditional fractions in a bundle.

    Attributes:
        bundle_id: Id of the bundle.
        choices: Calibration for each choice of models.
    """

    bundle_id: str
    choices: tuple[Calibration, ...]

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Self:
        """Read a bundle's calibration.

        Raises:
            UsageError: The bundle has no intervals of conditional fractions, or they are damaged.
        """
        values = bundle.manifest["calibration"]
        names = sorted(values["combinations"], key=lambda name: (name != _DEFAULT, name))
        choices = tuple(Calibration.of_bundle(values, name.split("+")) for name in names)
        if any(choice.conditional is None for choice in choices):
            raise UsageError(
                f"the bundle {bundle.bundle_id} has no intervals of conditional fractions, since an earlier "
                "release calibrated it; run gax run with a bundle of this release"
            )
        return cls(bundle.bundle_id, choices)

    def add_to(self, rows: pa.Table) -> pa.Table:
        """Append `CONDITIONAL_COLUMNS` to rows of a catalog.

        Args:
            rows: N rows that one run made, with at least the columns `NEEDED`.

        Raises:
            UsageError: Another bundle made some of the rows, or their intervals are not the bundle's.
        """
        others = sorted(set(rows["bundle_id"].unique().to_pylist()) - {self.bundle_id})
        if others:
            raise UsageError(
                f"galaxies of the catalog were made by {others[0]}, not by {self.bundle_id}, whose intervals "
                "of conditional fractions are only for its own galaxies; name their bundle with --bundle"
            )
        prob, std = (_values(rows, kind, slice(None)) for kind in ("prob", "std"))
        fitted = self._fitted(rows, prob, std)
        quantities = [fitted.expected(prob), *fitted.interval(prob, std, INTERVAL)]
        # A question whose fractions are all unknown has equal conditional fractions, which are not a
        # prediction.
        values = np.where(np.isfinite(prob), np.stack(quantities), np.float32(np.nan))
        columns = np.moveaxis(values, 0, 2).reshape(len(rows), len(NAMES)).T
        arrays = [pa.array(column, pa.float32(), from_pandas=True) for column in columns]
        schema = pa.schema([*rows.schema, *(column.field for column in CONDITIONAL_COLUMNS)])
        return pa.Table.from_arrays([*rows.columns, *arrays], schema=schema)

    def _fitted(self, rows: pa.Table, prob: Float, std: Float) -> Predictive:
        """Return the distribution of the choice of models whose intervals the rows have."""
        stored = [_values(rows, kind, _FIRST.columns) for kind in ("lo", "hi")]
        for choice in self.choices:
            ends = choice.predictive.interval(prob, std, INTERVAL)
            alike = (
                np.allclose(end[:, _FIRST.columns], kept, rtol=0, atol=_EQUAL, equal_nan=True)
                for end, kept in zip(ends, stored, strict=True)
            )
            if choice.conditional is not None and all(alike):
                return choice.conditional
        raise UsageError(
            f"the catalog's intervals are not those that the bundle {self.bundle_id} gives for any choice of "
            "models, since another release made them; run the same gax run again, which redoes them"
        )


def _values(rows: pa.Table, kind: str, answers: slice) -> Float:
    """Return a quantity of some answers, `[N, A]`; NaN where it is null."""
    columns = [rows[f"{answer}_{kind}"].to_numpy() for answer in gz2.ANSWERS[answers]]
    return np.stack(columns, axis=1).astype(np.float32, copy=False)
