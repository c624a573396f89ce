"""From draws to the columns of the catalog: mean, spread, entropy, mutual information, intervals, blend.

Two uncertainties are distinguished. The *epistemic* one is the spread of an answer's probability over
networks drawn from the posterior; more training galaxies would reduce it. The *predictive* interval is for
the vote fraction of a finite number of volunteers. It includes the vote noise, and is calibrated on held-out
galaxies. This module needs only NumPy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch import gz2
from gax_batch.errors import UsageError
from gax_batch.models.blending import Blend
from gax_batch.models.predictive import Predictive

Float = npt.NDArray[np.float32]
INTERVAL = 0.9


@dataclass(frozen=True, slots=True)
class Summary:
    """Results of N galaxies, one per row. Values that the models that ran do not provide are NaN.

    Attributes:
        prob: Cumulative fractions, the blend of the models that ran, float32 `[N, 37]`.
        std: Epistemic standard deviation over the blended draws, float32 `[N, 37]`.
        lo: Lower end of the calibrated 90 % predictive interval, at most `prob`, float32 `[N, 37]`.
        hi: Upper end of that interval, at least `prob`, float32 `[N, 37]`.
        svr: Cumulative fractions of the CNN-SVR alone, float32 `[N, 37]`.
        entropy: Entropy of each question, nats, float32 `[N, 11]`.
        mutual_info: Mutual information of each question, nats, float32 `[N, 11]`.
        ood_score: Out-of-distribution score from 0 (like another training galaxy) to 1 (like none of them),
            float32 `[N]`.
        gz2_class: N class strings of Willett et al. 2013.
        gz2_class_margin: Margin of the class, float32 `[N]`, see `gz2.gz2_class_margin`.
        out_of_distribution: Whether the score is above the bundle's threshold, bool `[N]`.
        draws: Values that `prob` would have with draw k alone, float32 `[N, S, 37]`. `prob` and `std` are
            their mean and standard deviation. S is 0 if the Bayesian CNN did not run.
    """

    prob: Float
    std: Float
    lo: Float
    hi: Float
    svr: Float
    entropy: Float
    mutual_info: Float
    ood_score: Float
    gz2_class: list[str]
    gz2_class_margin: Float
    out_of_distribution: npt.NDArray[np.bool_]
    draws: Float

    def columns(self) -> dict[str, npt.NDArray[np.float32] | npt.NDArray[np.bool_] | list[str]]:
        """Return one array of length N for each of the catalog's columns, by the column's name."""
        columns: dict[str, npt.NDArray[np.float32] | npt.NDArray[np.bool_] | list[str]] = {
            f"{name}_{quantity}": values[:, i]
            for names, quantities in (
                (gz2.ANSWERS, ("prob", "std", "lo", "hi", "svr")),
                (gz2.QUESTION_NAMES, ("entropy", "mutual_info")),
            )
            for quantity in quantities
            for values in [getattr(self, quantity)]
            for i, name in enumerate(names)
        }
        return columns | {
            "gz2_class": self.gz2_class,
            "gz2_class_margin": self.gz2_class_margin,
            "ood_score": self.ood_score,
            "out_of_distribution": self.out_of_distribution,
        }

    @classmethod
    def concatenate(cls, parts: Sequence["Summary"]) -> "Summary":
        """Return the rows of one or more summaries, in order."""
        joined = {
            f.name: np.concatenate([getattr(p, f.name) for p in parts])
            for f in fields(cls)
            if f.name != "gz2_class"
        }
        return cls(gz2_class=[name for part in parts for name in part.gz2_class], **joined)

    def head(self, count: int) -> "Summary":
        """Return the first `count` rows."""
        return Summary(**{f.name: getattr(self, f.name)[:count] for f in fields(self)})

    def take(self, rows: npt.NDArray[np.intp]) -> "Summary":
        """Return some rows, in the given order."""
        names = [self.gz2_class[row] for row in rows]
        others = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "gz2_class"}
        return Summary(gz2_class=names, **others)


def entropy(conditional: Float) -> Float:
    """Return the Shannon entropy of each question's answers in nats.

    Args:
        conditional: Conditional fractions, float32 `[..., 37]`. The answers of each question sum to 1.

    Returns:
        Entropies, float32 `[..., 11]`, between 0 and the logarithm of the number of answers.
    """
    terms = -conditional * np.log(np.maximum(conditional, np.float32(1e-30)))
    return np.stack([np.maximum(terms[..., q.columns].sum(axis=-1), 0) for q in gz2.QUESTIONS], axis=-1)


def draw_statistics(draws: Float) -> tuple[Float, Float, Float, Float]:
    """Return moments and information of posterior draws.

    Mutual information is the entropy of the mean prediction minus the mean entropy of the predictions:
    Houlsby et al. 2011, "Bayesian active learning for classification and preference learning" (BALD).

    Args:
        draws: Cumulative fractions, float32 `[S, N, 37]`.

    Returns:
        Mean and standard deviation over draws of the cumulative fractions, `[N, 37]`; entropy of the
        posterior predictive distribution of each question's answers, and mutual information, `[N, 11]`,
        nats, for a volunteer who reaches the question. 0 <= mutual information <= entropy.
    """
    mean = draws.mean(axis=0)
    std = np.sqrt(np.square(draws - mean).mean(axis=0))
    conditional = np.asarray(gz2.conditional(draws), np.float32)
    predictive = entropy(conditional.mean(axis=0))
    information = np.clip(predictive - entropy(conditional).mean(axis=0), 0, predictive)
    return mean, std, predictive, information


@dataclass(frozen=True, slots=True)
class Calibration:
    """The calibration of one choice of models, measured on calibration galaxies. A part of the bundle.

    Attributes:
        models: Models that run.
        blend: Blend of their fractions.
        predictive: Distribution of cumulative fractions for this choice of models.
        conditional: Distribution of conditional fractions; None in bundles of earlier releases.
        ood_threshold: Galaxies with a larger `ood_score` are flagged.
    """

    models: tuple[str, ...]
    blend: Blend
    predictive: Predictive
    ood_threshold: float
    conditional: Predictive | None = None

    @classmethod
    def of_bundle(cls, values: Mapping[str, Any], models: Sequence[str]) -> "Calibration":
        """Return the part of a bundle's `calibration` for a choice of models.

        Args:
            values: `calibration` of a bundle's manifest.
            models: Models that run.

        Raises:
            UsageError: The choice, or a question, is missing.
        """
        chosen = tuple(sorted(set(models)))
        combination = values.get("combinations", {}).get(combination_name(chosen))
        if combination is None:
            raise UsageError(
                f"the bundle was not calibrated for the models {', '.join(chosen)}; choose others, or "
                "another bundle"
            )
        asked = combination.get("conditional")
        return cls(
            models=chosen,
            blend=Blend.of_json(combination),
            predictive=Predictive.of_json(combination),
            ood_threshold=float(values["ood_threshold"]),
            conditional=None if asked is None else Predictive.of_json(asked, conditional=True),
        )


def combination_name(models: Sequence[str]) -> str:
    """Return the key of a choice of models in a bundle's calibration: sorted names joined by plus signs."""
    return "+".join(sorted(models))


def regression_to_fractions(raw: Float) -> Float:
    """Convert raw regressions `[N, 37]` to cumulative fractions: non-negative, consistent with the tree."""
    conditional = gz2.conditional(np.maximum(raw, np.float32(0)))
    return np.clip(np.asarray(gz2.cumulative(conditional), np.float32), 0, 1)


def svr_fractions(raw: Float) -> tuple[Float, Float]:
    """Return the regressions' fractions, and those that other training galaxies would have given.

    Half the difference of the fits on two complementary halves of the training galaxies scatters as the fit
    on all of them does (a delete-half jackknife: Shao & Tu 1995, The Jackknife and Bootstrap, section 2.3).
    Adding and subtracting it gives two draws.

    Args:
        raw: The regressions and P halves of differences, float32 `[1 + P, N, 37]`.

    Returns:
        Cumulative fractions `[N, 37]` and `[2 P, N, 37]`, each consistent with the tree. Draw k and draw
        k + P have opposite deviations.
    """
    mean, deviations = raw[0], raw[1:]
    draws = np.concatenate([mean + deviations, mean - deviations])
    return regression_to_fractions(mean), regression_to_fractions(draws)


def summarize(calibration: Calibration, outputs: Mapping[str, Float]) -> Summary:
    """Compute the catalog's columns from the outputs of the models that ran.

    Mean, spread, entropy and information are those of the blended draws. Without draws, spread and mutual
    information are NaN, and the entropy is that of the blend.

    Args:
            calibration: Calibration of the same choice of models.
            outputs: Cumulative fractions, float32: `bayesian` `[S, N, 37]` (draws), `classic` and `svr`
                `[N, 37]`. With `svr` also `svr_draws` `[2 P, N, 37]` (see `svr_fractions`) and `closeness`
                `[N]`, the largest kernel value to any support vector that is not the galaxy itself.

    Returns:
        N rows.
    """
    predictions = {name: outputs[name] for name in calibration.models}
    if "bayesian" in outputs:
        if "svr" in outputs:
            predictions["svr"] = repeated(outputs["svr_draws"], len(outputs["bayesian"]))
        each = calibration.blend(predictions)
        prob, std, uncertainty, information = draw_statistics(each)
        # Draws come first for the models, galaxies for the catalog.
        draws = np.swapaxes(each, 0, 1)
    else:
        prob = calibration.blend(predictions)
        std = np.full_like(prob, np.nan)
        uncertainty = entropy(np.asarray(gz2.conditional(prob), np.float32))
        information = np.full_like(uncertainty, np.nan)
        draws = np.empty((len(prob), 0, gz2.N_ANSWERS), np.float32)
    lo, hi = calibration.predictive.interval(prob, std, INTERVAL)
    absent = np.full_like(prob, np.nan)
    ood_score = 1 - outputs["closeness"] if "closeness" in outputs else absent[:, 0]
    return Summary(
        prob=prob,
        std=std,
        lo=lo,
        hi=hi,
        svr=outputs.get("svr", absent),
        entropy=uncertainty,
        mutual_info=information,
        ood_score=ood_score,
        gz2_class=gz2.gz2_class(prob),
        gz2_class_margin=gz2.gz2_class_margin(prob),
        out_of_distribution=ood_score > calibration.ood_threshold,
        draws=draws,
    )


def rows_of(outputs: Mapping[str, Float], rows: npt.NDArray[np.intp] | slice) -> dict[str, Float]:
    """Return the outputs of some galaxies. The axis of galaxies follows that of draws, if any."""
    return {name: v[:, rows] if v.ndim == 3 else v[rows] for name, v in outputs.items()}


def repeated(draws: Float, count: int) -> Float:
    """Return `count` draws, from the first one again after the last: `[D, N, 37]` to `[count, N, 37]`."""
    return draws[np.arange(count) % len(draws)]
