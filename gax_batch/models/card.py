"""A bundle's model card: what it was trained on, what it reached on held-out galaxies, its limits."""

import json
from typing import Any

from gax_batch.models.bundle import Bundle


def model_card(bundle: Bundle) -> dict[str, Any]:
    """The card as plain data; numbers that the bundle does not hold are absent."""
    manifest = bundle.manifest
    return {"bundle_id": bundle.bundle_id} | {
        key: manifest[key]
        for key in ("seed", "preprocessing", "training", "metrics", "limits")
        if key in manifest
    }


def card_json(bundle: Bundle) -> str:
    """The card as JSON."""
    return json.dumps(model_card(bundle), indent=2)


def card_text(bundle: Bundle) -> str:
    """The card as lines for a person."""
    card = model_card(bundle)
    lines = [f"bundle {card['bundle_id']}", *_training(card.get("training", {}))]
    lines += _metrics(card.get("metrics", {}))
    lines += ["limits:", *(f"  - {limit}" for limit in card.get("limits", []))] if card.get("limits") else []
    return "\n".join(lines)


def _training(training: dict[str, Any]) -> list[str]:
    if not training:
        return ["training: not recorded"]
    galaxies, svr = training["galaxies"], training["svr"]
    return [
        f"trained on: {training['data']}",
        f"  {galaxies['train']} galaxies; {galaxies['calibration']} others calibrated it",
        f"  CNN-SVR: {svr['support_vectors']} support vectors, C {svr['C']:g}, epsilon {svr['epsilon']:g}",
    ]


def _metrics(metrics: dict[str, Any]) -> list[str]:
    if not metrics:
        return ["held-out numbers: not recorded"]
    intervals, epistemic = metrics["intervals"], metrics["epistemic"]
    return [
        f"held-out numbers ({metrics['galaxies']} galaxies that trained and calibrated nothing, "
        f"{metrics['draws']} draws):",
        "                       RMSE of 37   votes' negative",
        "                        fractions   log likelihood (nats)",
        *(f"  {name:<20}{p['rmse']:>12.4f}{p['votes_nll']:>15.2f}" for name, p in metrics["points"].items()),
        f"  the noise of the votes alone is an RMSE of {metrics['vote_noise_rmse']:.4f}",
        f"  90 % intervals hold {intervals['coverage']:.1%} of the fractions (worst answer "
        f"{intervals['coverage_worst_answer']:.1%}), mean width {intervals['mean_width']:.3f}",
        f"  intervals of the draws alone would hold {epistemic['coverage_of_draws_alone']:.1%}",
    ]
