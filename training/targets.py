"""The targets of each galaxy's predicted fractions, from its labels and a teacher, and their loss."""

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
# Fractions are fitted for their squared error, which the catalog is judged by; the likelihood of votes
# keeps the rare answers' probabilities from vanishing. Chosen on the galaxies that calibrate.
VOTES_WEIGHT = 0.1
LARGEST_WEIGHT = 0.5
# Weighted votes teach through outputs of their own, which no bundle keeps.
WEIGHTED_WEIGHT = 0.05


def targets_of(galaxies: Galaxies, teacher: Float | None = None) -> Targets:
    """Return the targets of all galaxies.

    Args:
        galaxies: N of them.
        teacher: Cumulative fractions float32 `[N, 37]` that a larger network predicts, or None.

    Returns:
        Arrays of N rows by name; unknown values have no weight.
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
        cumulative: `[N, 37]`, NaN where unknown.
        volunteers: `[N]`, number of people.
    """
    finite = np.nan_to_num(cumulative)
    totals = np.stack([finite[:, q.columns].sum(axis=1) for q in gz2.QUESTIONS], axis=1)
    return gz2.conditional(finite), np.asarray(volunteers[:, None] * totals, np.float32)


def label_loss(logits: Any, weighted_logits: Any, batch: Mapping[str, Any], teacher_share: float) -> Any:
    """Return the negative log likelihood of each galaxy's labels, nats, and of the teacher's fractions.

    Args:
        logits: `[N, 37]` float32.
        weighted_logits: `[N, 37]` float32, of the weighted votes; None where a network has no such outputs.
        batch: N rows of `targets_of`.
        teacher_share: Weight of the teacher's fractions; the labels have the rest.

    Returns:
        `[N]` float32.
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
