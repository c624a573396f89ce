"""Write a bundle's model card as a page of the documentation, with its figures.

python -m training.card --bundle FOLDER --output docs
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gax_batch.analysis.evaluation import conditional, looks
from gax_batch.analysis.evaluation.page import figures
from gax_batch.analysis.plots import standalone
from gax_batch.errors import UsageError
from gax_batch.models.bundle import Bundle, load_bundle

PAGE = "model-card.md"
NAMES = {
    "blend": "blend of Bayesian CNN and CNN-SVR (the catalog's)",
    "bayesian": "Bayesian CNN",
    "svr": "CNN-SVR",
    "classic": "classic CNN",
    "classic with MC dropout": "classic CNN with MC dropout",
    "blend of all three": "blend of all three",
}


def write_card(bundle: Bundle, folder: Path) -> Path:
    """Write the page and its figures.

    Args:
        bundle: Bundle with metrics.
        folder: Folder that receives the page and its figures.

    Returns:
        Path of the page.

    Raises:
        UsageError: The bundle has no metrics.
    """
    manifest, metrics = bundle.manifest, bundle.manifest.get("metrics")
    if not metrics:
        raise UsageError(f"the bundle {bundle.bundle_id} has no metrics; train or calibrate it first")
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for name, drawing in figures(metrics).items():
        (folder / f"model-card-{name}.svg").write_text(standalone(drawing), encoding="utf-8")
        pictures.append(f"![{name}](model-card-{name}.svg)")
    parts = [
        f"# Model card of {bundle.bundle_id}",
        "This page is written by `python -m training.card`; do not edit it.",
        _definition(manifest),
        "## Errors",
        _sample(metrics),
        _models(metrics["models"]),
        *_baselines(metrics),
        "## Intervals",
        _levels(metrics),
        _questions(metrics),
        *_conditional(metrics),
        *_looks(metrics),
        "## Figures",
        "\n".join(pictures),
        "## Limits",
        "\n".join(f"- {limit}" for limit in manifest["limits"]),
    ]
    path = folder / PAGE
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def _definition(manifest: Mapping[str, Any]) -> str:
    training = manifest["training"]
    counts = ", ".join(f"{count:,} ({name})" for name, count in training["galaxies"].items())
    return (
        f"Fractions are *{manifest['definition']}*. Trained on {training['data']}: {counts}. "
        f"{training['svr']['support_vectors']:.0f} support vectors."
    )


def _sample(metrics: Mapping[str, Any]) -> str:
    counts, complete = metrics["galaxies"], metrics["models"]["blend"]["galaxies"]
    return (
        f"Of {metrics['sample']}: {counts['voted']:,} with fractions, {complete} of them with all 37, and "
        f"{counts['classes']:,} of a clear class; {metrics['draws']} draws. An RMSE of "
        f"{metrics['vote_noise_rmse']:.3f} results from the noise of 40 votes alone."
    )


def _models(models: Mapping[str, Any]) -> str:
    rows = [("", "RMSE of 37 fractions", "votes' NLL, nats", "five clear classes", "edge-on disks")]
    for key, name in NAMES.items():
        found = models[key]
        rows.append(
            (
                name,
                f"{found['rmse']:.4f}",
                f"{found['votes_nll']:.2f}",
                f"{found['class_accuracy']:.1%}",
                f"{found['by_class'].get('edge_on', float('nan')):.1%}",
            )
        )
    return _table(rows)


def _baselines(metrics: Mapping[str, Any]) -> list[str]:
    """Return the parts on the deep ensemble and the models of halves, if they were trained."""
    found = metrics.get("baselines")
    if found is None:
        return []
    names = NAMES | {"deep ensemble": f"deep ensemble of {found['members']} classic CNNs"}
    rows = [
        (
            "of all draws or members",
            "RMSE of 37 fractions",
            "votes' NLL, nats",
            "five clear classes",
            "mean spread",
            "coverage of their central 90 %",
            "RMSE of the most certain half",
            "area under risk-coverage",
        )
    ]
    for key, row in found["models"].items():
        rows.append(
            (
                names[key],
                f"{row['rmse']:.4f}",
                f"{row['votes_nll']:.2f}",
                f"{row.get('class_accuracy', float('nan')):.1%}",
                f"{row['mean_std']:.4f}",
                f"{row['coverage_of_draws_alone']:.1%}",
                f"{row['rmse_of_surest_half']:.4f}",
                f"{row['risk_coverage_area']:.4f}",
            )
        )
    note = (
        f"Measured together with {found['bundle']}, whose classic CNN is one of the members. The others "
        f"were trained with {found['effort']:g} times the recipe's steps. The most certain galaxies are "
        "those with the least spread, of all galaxies with fractions."
    )
    parts = ["## Spread compared with a deep ensemble", _table(rows), note]
    return [*parts, *_halves(found["halves"])] if "halves" in found else parts


def _halves(halves: Mapping[str, Any]) -> list[str]:
    rows = [("population fractions", "scatter between halves", "`model_std`", "ratio")]
    for name, row in ({"all": halves["all"]} | halves["questions"]).items():
        rows.append((name, f"{row['scatter']:.5f}", f"{row['model_std']:.5f}", f"{row['ratio']:.2f}"))
    note = (
        "Two blends, each trained on its own half of the training galaxies without a teacher, predict the "
        "same galaxies. The scatter is the difference of their population fractions divided by the root of "
        "2. The ratio is the root mean square of the answers' scatter divided by `model_std`. If it is above "
        "1, `model_std` is too small. One pair of halves says little about a single question; the ratio of "
        "all questions counts."
    )
    return ["## Accuracy of `model_std` of `gax population`", _table(rows), note]


def _levels(metrics: Mapping[str, Any]) -> str:
    blind = metrics["intervals without the Bayesian spread"]
    rows = [("level", "coverage", "coverage where asked", "width", "width without the Bayesian spread")]
    for level, found in metrics["intervals"].items():
        rows.append(
            (
                f"{float(level):.0%}",
                f"{found['coverage']:.1%}",
                f"{found['coverage_asked']:.1%}",
                f"{found['width']:.3f}",
                f"{blind[level]['width']:.3f} (coverage {blind[level]['coverage']:.1%})",
            )
        )
    scores = metrics["distribution"]["all"]
    note = (
        f"Continuous ranked probability score {scores['crps']:.4f}, calibration error "
        f"{scores['calibration_error']:.3f}. The central 90 % of the draws alone contain "
        f"{metrics['epistemic']['blend']['coverage_of_draws_alone']:.1%} of the fractions."
    )
    return _table(rows) + "\n\n" + note


def _questions(metrics: Mapping[str, Any]) -> str:
    rows = [
        ("90 % intervals by question", "galaxies", "asked", "coverage", "where asked", "width where asked")
    ]
    for name, found in metrics["intervals"]["0.9"]["questions"].items():
        rows.append(
            (
                name,
                f"{found['galaxies']:,}",
                f"{found['galaxies_asked']:,}",
                f"{found['coverage']:.1%}",
                f"{found['coverage_asked']:.1%}",
                f"{found['width_asked']:.3f}",
            )
        )
    anomalies = metrics["out_of_distribution"]
    return _table(rows) + f"\n\nOut-of-distribution score: AUC {anomalies['auc']:.3f}."


def _conditional(metrics: Mapping[str, Any]) -> list[str]:
    """Return the table of conditional fractions, which bundles of earlier releases lack."""
    if "conditional" not in metrics:
        return []
    note = "90 % intervals of conditional fractions: of the volunteers who are asked."
    return [note, _table(conditional.table(metrics["conditional"]))]


def _looks(metrics: Mapping[str, Any]) -> list[str]:
    """Return the table by look of the image, if the bundle was measured with images."""
    if "by_look" not in metrics:
        return []
    note = f"90 % intervals by look of the image. {looks.NOTE}"
    return [note, _table(looks.table(metrics["by_look"]))]


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def main() -> None:
    """Command line: see the module's docstring."""
    parser = argparse.ArgumentParser(description="Write a bundle's model card.")
    parser.add_argument("--bundle", help="folder of the bundle; the shipped one by default")
    parser.add_argument("--output", type=Path, required=True, help="folder of the page")
    options = parser.parse_args()
    try:
        print(write_card(load_bundle(options.bundle), options.output))
    except UsageError as error:
        print(f"card: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
