"""Labels of N galaxies, row by row."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gax_batch import gz2
from gax_batch.errors import UsageError

Float = npt.NDArray[np.float32]
DEBIASED, WEIGHTED = "debiased", "weighted"
DEFINITIONS = (DEBIASED, WEIGHTED)
"""Definitions of vote fractions, which are two different quantities.

`debiased`: fractions that volunteers would give if the galaxy were near; those of the Galaxy Zoo challenge,
and the debiased columns of Hart et al. 2016. `weighted`: votes for the image as it is.
"""
NUMBERINGS = ("asset_id", "GalaxyID")
"""Ways to number galaxies. One number can mean two galaxies."""
# The challenge does not publish numbers of votes; about 40 people classified a galaxy (Willett et al. 2013).
CHALLENGE_VOTES = 40.0


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of N galaxies.

    Attributes:
        ids: Identifiers of the galaxies, without duplicates.
        cumulative: Cumulative vote fractions, float32 `[N, 37]`; NaN if unknown.
        volunteers: Number of people who classified each galaxy, float32 `[N]`: `CHALLENGE_VOTES` if this is
            not published, 0 without fractions.
        classes: Index into `CLEAR_CLASSES`, int8 `[N]`; `NO_CLASS` for certainly none of the five, or -1 if
            unknown.
        strict: bool `[N]`, False for a spiral that does not satisfy `STRICT_SPIRAL`, True for all others.
        largest: Index into `LARGEST_COLUMNS` of the largest fraction, int8 `[N]`; -1 if unknown.
        definition: The definition of the fractions, one of `DEFINITIONS`.
        numbering: The meaning of the identifiers, one of `NUMBERINGS`.
    """

    ids: list[str]
    cumulative: Float
    volunteers: Float
    classes: npt.NDArray[np.int8]
    strict: npt.NDArray[np.bool_]
    largest: npt.NDArray[np.int8]
    definition: str
    numbering: str

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Whether each fraction is known, bool `[N, 37]`."""
        return np.isfinite(self.cumulative)

    @property
    def voted(self) -> npt.NDArray[np.bool_]:
        """Whether any fraction of each galaxy is known, bool `[N]`."""
        return np.asarray(self.known.any(axis=1))

    @property
    def complete(self) -> npt.NDArray[np.bool_]:
        """Whether all 37 fractions of each galaxy are known, bool `[N]`."""
        return np.asarray(self.known.all(axis=1))

    @property
    def fractions(self) -> Float:
        """Conditional fractions, float32 `[N, 37]`; equal ones if unknown or if nobody was asked."""
        return np.asarray(gz2.conditional(np.nan_to_num(self.cumulative)), np.float32)

    @property
    def conditional(self) -> Float:
        """Conditional fractions, float32 `[N, 37]`; NaN if unknown or if nobody was asked."""
        columns = [self.cumulative[:, question.columns] for question in gz2.QUESTIONS]
        answered = [np.broadcast_to(v.sum(axis=1, keepdims=True) > 0, v.shape) for v in columns]
        return np.where(np.concatenate(answered, axis=1), self.fractions, np.float32(np.nan))

    @property
    def share_asked(self) -> Float:
        """Fraction of volunteers who were asked each question, float32 `[N, 11]`; NaN if unknown.

        If the answer that leads to a known question is unknown, the question's own answers sum to it.
        """
        shares = np.empty((len(self), gz2.N_QUESTIONS), np.float32)
        for index, question in enumerate(gz2.QUESTIONS):
            total = self.cumulative[:, question.columns].sum(axis=1)
            parent = np.ones_like(total) if question.parent is None else self.cumulative[:, question.parent]
            shares[:, index] = np.where(np.isfinite(total) & np.isfinite(parent), parent, total)
        return shares

    @property
    def reached(self) -> Float:
        """Number of votes that reached each question, float32 `[N, 11]`; 0 if unknown or not answered."""
        totals = [self.cumulative[:, question.columns].sum(axis=1) for question in gz2.QUESTIONS]
        answered = np.stack(totals, axis=1) > 0
        return np.where(answered, self.volunteers[:, None] * self.share_asked, np.float32(0))

    def take(self, rows: npt.NDArray[np.intp]) -> "Labels":
        """Return some rows, in the given order."""
        return replace(
            self,
            ids=[self.ids[int(i)] for i in rows],
            cumulative=self.cumulative[rows],
            volunteers=self.volunteers[rows],
            classes=self.classes[rows],
            strict=self.strict[rows],
            largest=self.largest[rows],
        )

    @classmethod
    def of_fractions(
        cls,
        ids: Sequence[str],
        cumulative: npt.NDArray[np.floating],
        volunteers: npt.ArrayLike,
        *,
        definition: str,
        numbering: str,
    ) -> "Labels":
        """Return labels that consist only of fractions.

        Args:
            ids: Identifiers of N galaxies.
            cumulative: Cumulative fractions, float `[N, 37]`; NaN if unknown.
            volunteers: Number of people who classified each galaxy, `[N]` or one number.
            definition: One of `DEFINITIONS`.
            numbering: One of `NUMBERINGS`.
        """
        count = len(ids)
        unknown = np.full(count, -1, np.int8)
        people = np.broadcast_to(np.asarray(volunteers, np.float32), (count,))
        people = np.where(np.isfinite(cumulative).any(axis=1), people, np.float32(0))
        values = np.asarray(cumulative, np.float32)
        strict = np.ones(count, bool)
        return cls(list(ids), values, people, unknown, strict, unknown.copy(), definition, numbering)

    @classmethod
    def concatenate(cls, parts: Sequence["Labels"]) -> "Labels":
        """Return the rows of several tables, in order; at least one table.

        Raises:
            UsageError: The tables have different definitions or numberings.
        """
        require_alike(parts)
        return cls(
            ids=[name for part in parts for name in part.ids],
            cumulative=np.concatenate([part.cumulative for part in parts]),
            volunteers=np.concatenate([part.volunteers for part in parts]),
            classes=np.concatenate([part.classes for part in parts]),
            strict=np.concatenate([part.strict for part in parts]),
            largest=np.concatenate([part.largest for part in parts]),
            definition=parts[0].definition,
            numbering=parts[0].numbering,
        )


def require_alike(parts: Sequence[Labels]) -> None:
    """Check that tables have the same definition and the same numbering.

    Raises:
        UsageError: They differ.
    """
    definitions = sorted({part.definition for part in parts})
    numberings = sorted({part.numbering for part in parts})
    if len(definitions) > 1:
        raise UsageError(
            f"the tables have fractions of different definitions ({' and '.join(definitions)}), which are "
            "different quantities; use tables of one definition"
        )
    if len(numberings) > 1:
        raise UsageError(
            f"the tables number galaxies differently ({' and '.join(numberings)}), so that one number can "
            "mean two galaxies; use tables of one numbering"
        )
