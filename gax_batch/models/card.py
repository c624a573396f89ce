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
    lines = [
        f"trained on: {training['data']}",
        f"  {galaxies['voted']} galaxies with votes, {galaxies['classes']} with a class alone",
        f"  CNN-SVR: {svr['support_vectors']:.0f} support vectors, C {svr['C']:g}, "
        f"epsilon {svr['epsilon']:g}, gamma {svr['gamma']:g}",
        "Bayesian CNN, standard deviations (prior; the posterior's 10th, 50th and 90th percentile):",
    ]
    bound = training["evidence"]
    return [
        *lines,
        *(_layer(name, layer) for name, layer in training["posterior"].items()),
        f"  evidence lower bound {bound['evidence_lower_bound']:.1f} nats a galaxy: expected log likelihood "
        f"{bound['expected_log_likelihood']:.1f}, divergence {bound['divergence_per_galaxy']:.1f}",
    ]


def _layer(name: str, layer: dict[str, float]) -> str:
    parts = "".join(f"{layer[f'deviation_{p}']:>10.5f}" for p in (10, 50, 90))
    return f"  {name:<10}{layer['prior_deviation']:>9.4f};{parts}"


def _metrics(metrics: dict[str, Any]) -> list[str]:
    if not metrics:
        return ["out-of-fold numbers: not recorded"]
    galaxies, anomalies = metrics["galaxies"], metrics["out_of_distribution"]
    lines = [
        f"out-of-fold numbers ({galaxies['voted']} galaxies with votes, {galaxies['classes']} of a clear "
        f"class, {metrics['draws']} draws):",
        "                              RMSE of 37   votes' negative    five clear",
        "                               fractions   log likelihood        classes",
        *(_point(name, values) for name, values in metrics["points"].items()),
        f"  the noise of the votes alone is an RMSE of {metrics['vote_noise_rmse']:.4f}",
    ]
    for level, found in metrics["intervals"].items():
        lines.append(
            f"  {float(level):.0%} intervals hold {found['coverage']:.1%} of the fractions (worst answer "
            f"{found['coverage_worst_answer']:.1%}), mean width {found['width']:.3f}"
        )
    draws = metrics["epistemic"]["bayesian"]["coverage_of_draws_alone"]
    return [
        *lines,
        f"  90 % intervals of the draws alone would hold {draws:.1%}",
        f"  out-of-distribution score: AUC {anomalies['auc']:.3f}",
        f"  a turn by 90 degrees changes the blend by {metrics['rotation_mean_change']:.4f} on average",
    ]


def _point(name: str, values: dict[str, Any]) -> str:
    accuracy = f"{values['class_accuracy']:>13.1%}" if "class_accuracy" in values else ""
    return f"  {name:<27}{values['rmse']:>11.4f}{values['votes_nll']:>18.2f}{accuracy}"
