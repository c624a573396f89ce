"""Targets of each galaxy's predicted fractions, from its labels and a teacher, and their loss."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from gax_batch import gz2
from gax_batch.analysis.labels import CHALLENGE_VOTES
from gax_batch.models.layers import cumulative_probabilities
from training import losses
from training.data import Galaxies

Float = npt.NDArray[np.float32]
Targets = dict[str, npt.NDArray[Any]]
# Fractions are fitted by their squared error, the metric of the catalog. The likelihood of votes keeps the
# probabilities of rare answers from vanishing. Chosen on the calibration sample.
VOTES_WEIGHT = 0.1
LARGEST_WEIGHT = 0.5
# Weighted votes are targets of separate outputs, which a bundle does not contain.
WEIGHTED_WEIGHT = 0.05


def targets_of(galaxies: Galaxies, teacher: Float | None = None) -> Targets:
    """Return the targets of all galaxies.

    Args:
        galaxies: N galaxies.
        teacher: Cumulative fractions that a larger network predicts, float32 `[N, 37]`, or None.

    Returns:
        Arrays of N rows by name. Unknown values have the weight 0.
    """
    known = np.isfinite(galaxies.cumulative)
    weight = np.where(known, galaxies.trust[:, None], np.float32(0)).astype(np.float32)
    fractions, reached = votes_of(galaxies.cumulative, CHALLENGE_VOTES * galaxies.trust)
    weighted_fractions, weighted_reached = votes_of(galaxies.weighted, galaxies.volunteers)
    targets = {
        "cumulative": np.nan_to_num(galaxies.cumulative),
        "weight": weight,
        "fractions": fractions,
        "reached": reached,
        "weighted_fractions": weighted_fractions,
        "weighted_reached": weighted_reached,
        "classes": galaxies.classes.astype(np.int32),
        "strict": galaxies.strict,
        "largest": galaxies.largest.astype(np.int32),
    }
    if teacher is not None:
        votes = np.full(len(teacher), CHALLENGE_VOTES, np.float32)
        targets["teacher"] = teacher
        targets["teacher_fractions"], targets["teacher_reached"] = votes_of(teacher, votes)
    return targets


def votes_of(cumulative: Float, volunteers: Float) -> tuple[Float, Float]:
    """Return the conditional fractions `[N, 37]`, and the votes that reached each question `[N, 11]`.

    Args:
        cumulative: Cumulative fractions, float32 `[N, 37]`; NaN if unknown.
        volunteers: Number of people who classified each galaxy, float32 `[N]`.
    """
    finite = np.nan_to_num(cumulative)
    totals = np.stack([finite[:, q.columns].sum(axis=1) for q in gz2.QUESTIONS], axis=1)
    return gz2.conditional(finite), np.asarray(volunteers[:, None] * totals, np.float32)


def label_loss(logits: Any, weighted_logits: Any, batch: Mapping[str, Any], teacher_share: float) -> Any:
    """Return the negative log likelihood of each galaxy's labels, nats, and of the teacher's fractions.

    Args:
        logits: Logits, float32 `[N, 37]`.
        weighted_logits: Logits of the weighted votes, float32 `[N, 37]`; None if the network has no such
            outputs.
        batch: N rows of `targets_of`.
        teacher_share: Weight of the teacher's fractions. The labels have the remaining weight.

    Returns:
        float32 `[N]`, nats.
    """
    cumulative = cumulative_probabilities(logits)
    loss = (1 - teacher_share) * (
        losses.fraction_error(cumulative, batch["cumulative"], batch["weight"])
        + VOTES_WEIGHT * losses.negative_log_likelihood(logits, batch["fractions"], batch["reached"])
        + losses.class_error(cumulative, batch["classes"], batch["strict"])
        + LARGEST_WEIGHT * losses.largest_error(cumulative, batch["largest"])
    )
    if teacher_share:
        loss += teacher_share * (
            losses.fraction_error(cumulative, batch["teacher"], tf.ones_like(cumulative))
            + VOTES_WEIGHT
            * losses.negative_log_likelihood(logits, batch["teacher_fractions"], batch["teacher_reached"])
        )
    if weighted_logits is not None:
        loss += WEIGHTED_WEIGHT * losses.negative_log_likelihood(
            weighted_logits, batch["weighted_fractions"], batch["weighted_reached"]
        )
    return loss
