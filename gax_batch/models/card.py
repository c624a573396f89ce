"""The model card of a bundle: the definition of its fractions, its errors on unseen galaxies, its limits."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gax_batch.gz2 import DEFINITION
from gax_batch.models.bundle import Bundle

Facts = Mapping[str, Any]
PARTS = ("definition", "metrics", "limits", "training", "preprocessing", "seed")
LEVEL = "0.9"


def model_card(bundle: Bundle) -> dict[str, Any]:
    """Return the card as plain data, without the hashes of the training galaxies.

    Entries that the bundle lacks are absent.
    """
    card = {name: bundle.manifest[name] for name in PARTS if name in bundle.manifest}
    if "training" in card:
        card["training"] = {
            name: value for name, value in card["training"].items() if not isinstance(value, list)
        }
    return {"bundle_id": bundle.bundle_id} | card


def card_json(bundle: Bundle) -> str:
    """Return the card as JSON."""
    return json.dumps(model_card(bundle), indent=2)


def card_text(bundle: Bundle) -> str:
    """Return the card as text for a person."""
    card = model_card(bundle)
    training, metrics = card.get("training", {}), card.get("metrics", {})
    lines = [f"bundle {card['bundle_id']}", _definition(card.get("definition")), *_split(training, metrics)]
    lines += _metrics(metrics)
    lines += _training(training)
    lines += ["limits:", *(f"  - {limit}" for limit in card.get("limits", []))] if card.get("limits") else []
    return "\n".join(lines)


def _definition(name: str | None) -> str:
    if name is None:
        return "fractions: their definition is not recorded"
    return f"fractions: {name}" + (f", each the {DEFINITION.description}" if name == DEFINITION.name else "")


def _split(training: Facts, metrics: Facts) -> list[str]:
    """Return lines about the training and the evaluation sample, which have no galaxy in common."""
    lines = [f"trained on: {training['data']}"] if "data" in training else ["training: not recorded"]
    counts = dict(training.get("galaxies", {}))
    if counts:
        total = f"{counts.pop('all'):,} galaxies: " if "all" in counts else "galaxies: "
        lines.append("  " + total + ", ".join(f"{count:,} with {name}" for name, count in counts.items()))
    if not metrics:
        return [*lines, "number of galaxies not used for training: not recorded"]
    lines.append(f"evaluated on: {metrics.get('sample', 'a sample that is not recorded')}")
    if "galaxies" in metrics:
        judged = metrics["galaxies"]
        draws = f"; {metrics['draws']} draws" if "draws" in metrics else ""
        lines.append(
            f"  {judged['voted']:,} galaxies with fractions, {judged['classes']:,} of a clear class{draws}"
        )
    return lines


def _metrics(metrics: Facts) -> list[str]:
    parts = (_models, _classes, _intervals, _questions, _distribution, _epistemic, _robustness)
    return [line for part in parts for line in part(metrics)]


def _models(metrics: Facts) -> list[str]:
    if "models" not in metrics:
        return []
    header = ("", "RMSE, all 37", "RMSE, any fractions", "votes' neg. log lik.", "five clear classes")
    rows: list[Sequence[str]] = [
        (
            name,
            _number(found, "rmse", ".4f"),
            _number(found, "rmse_of_some_fractions", ".4f"),
            _number(found, "votes_nll", ".2f"),
            _number(found, "class_accuracy", ".1%"),
        )
        for name, found in metrics["models"].items()
    ]
    if "vote_noise_rmse" in metrics:
        rows.append(("noise of the votes alone", "", _number(metrics, "vote_noise_rmse", ".4f")))
    return _table(header, rows)


def _classes(metrics: Facts) -> list[str]:
    found = metrics.get("clear_classes", {}).get("accuracy_by_class")
    if not found:
        return []
    return ["clear classes recognized: " + ", ".join(f"{name} {share:.1%}" for name, share in found.items())]


def _intervals(metrics: Facts) -> list[str]:
    if "intervals" not in metrics:
        return []
    blind = metrics.get("intervals without the Bayesian spread", {})
    header = [
        "coverage of intervals",
        "all fractions",
        "where asked",
        "worst answer",
        "mean width",
        "width where asked",
    ]
    header += ["without Bayesian spread", "its mean width"] if blind else []
    rows = []
    for level, found in metrics["intervals"].items():
        names = ("coverage", "coverage_asked", "coverage_worst_answer", "width", "width_asked")
        cells = [_number(found, name, ".3f" if name.startswith("width") else ".1%") for name in names]
        other = blind.get(level, {})
        cells += [_number(other, "coverage", ".1%"), _number(other, "width", ".3f")] if blind else []
        rows.append([f"{float(level):.0%}", *cells])
    return _table(header, rows)


def _questions(metrics: Facts) -> list[str]:
    """Return lines per question, since an average over all questions hides the rarely asked ones."""
    held = metrics.get("intervals", {}).get(LEVEL, {}).get("questions", {})
    if not held:
        return []
    errors = metrics.get("points", {}).get("questions", {})
    scores = metrics.get("distribution", {}).get("questions", {})
    asked = metrics.get("conditional", {}).get("questions", {})
    header = (
        "question",
        "RMSE",
        "90% coverage",
        "where asked",
        "conditional",
        "galaxies asked",
        "CRPS where asked",
    )
    return _table(
        header,
        [
            (
                name,
                _number(errors.get(name, {}), "rmse", ".4f"),
                _number(found, "coverage", ".1%"),
                _number(found, "coverage_asked", ".1%"),
                _number(asked.get(name, {}), "coverage", ".1%"),
                _number(found, "galaxies_asked", ","),
                _number(scores.get(name, {}), "crps", ".4f"),
            )
            for name, found in held.items()
        ],
    )


def _distribution(metrics: Facts) -> list[str]:
    found = metrics.get("distribution", {})
    return [
        f"predictive distribution, {words}: CRPS {found[name]['crps']:.4f}, calibration error "
        f"{found[name]['calibration_error']:.3f}"
        for name, words in (("all", "all fractions"), ("asked", "where asked"))
        if found.get(name)
    ]


def _epistemic(metrics: Facts) -> list[str]:
    return [
        f"90% intervals of the draws alone, {name}: contain {found['coverage_of_draws_alone']:.1%}, mean "
        f"standard deviation {found['mean_std']:.4f}"
        for name, found in metrics.get("epistemic", {}).items()
    ]


def _robustness(metrics: Facts) -> list[str]:
    lines = []
    if "out_of_distribution" in metrics:
        areas = dict(metrics["out_of_distribution"])
        whole = areas.pop("auc")
        kinds = ", ".join(f"{name.removeprefix('auc_')} {area:.3f}" for name, area in areas.items())
        lines.append(f"out-of-distribution score: AUC {whole:.3f}" + (f" ({kinds})" if kinds else ""))
    if "rotation_mean_change" in metrics:
        change = metrics["rotation_mean_change"]
        lines.append(f"a rotation by 90 degrees changes the blend by {change:.4f} on average")
    return lines


def _training(training: Facts) -> list[str]:
    lines = []
    if "svr" in training:
        svr = training["svr"]
        lines.append(
            f"CNN-SVR: {svr['support_vectors']:,.0f} support vectors, C {svr['C']:g}, "
            f"epsilon {svr['epsilon']:g}, gamma {svr['gamma']:g}"
        )
    if "posterior" in training:
        lines.append(
            "Bayesian CNN, standard deviations (prior; the posterior's 10th, 50th and 90th percentile):"
        )
        lines += [_layer(name, layer) for name, layer in training["posterior"].items()]
    if "evidence" in training:
        bound = training["evidence"]
        lines.append(
            f"  evidence lower bound {bound['evidence_lower_bound']:.1f} nats per galaxy: expected log "
            f"likelihood {bound['expected_log_likelihood']:.1f}, divergence "
            f"{bound['divergence_per_galaxy']:.1f}"
        )
    return lines


def _layer(name: str, layer: Facts) -> str:
    parts = "".join(f"{layer[f'deviation_{p}']:>10.5f}" for p in (10, 50, 90))
    return f"  {name:<10}{layer['prior_deviation']:>9.4f};{parts}"


def _number(found: Facts, name: str, form: str) -> str:
    """Return a number as text, or empty text if it is missing."""
    value = found.get(name)
    return "" if value is None else format(value, form)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Format rows as lines of columns, the first one aligned to the left, the others to the right."""
    table = [header, *rows]
    widths = [max(len(row[i]) for row in table if i < len(row)) for i in range(len(header))]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in table
    ]
