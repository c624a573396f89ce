"""`gax demo`: simulate a survey, catalog it, and describe the catalog."""

import logging

import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from gax_batch.catalog.snapshots import Catalog
from gax_batch.runner.run import run_survey
from gax_batch.runner.settings import RunSettings
from gax_batch.simulate.survey import simulate_survey

logger = logging.getLogger(__name__)

SEED = 2026
SHOWN_CLASSES = 8
SHOWN_GALAXIES = 6


def run_demo(settings: RunSettings, galaxies: int) -> int:
    """Simulate a survey, catalog it, and describe the catalog.

    Args:
        settings: Settings of the run. The survey is written to its input.
        galaxies: Number of galaxies to simulate.

    Returns:
        The exit code of the run.
    """
    logger.info(f"1. Simulating {galaxies:,} galaxies into {settings.input}")
    simulate_survey(settings.input, galaxies, SEED)
    logger.info(f"2. Cataloging them: gax run --input {settings.input} --catalog {settings.catalog}")
    logger.info(
        "   (The model was trained on real galaxies: it may warn that simulated images differ from them)"
    )
    outcome = run_survey(settings)
    logger.info(f"3. Contents of {settings.catalog}")
    logger.info(describe_catalog(settings.catalog))
    return outcome.exit_code


def describe_catalog(uri: str) -> str:
    """Return a few lines about a catalog: its size, most common classes and first galaxies."""
    shown = {
        "galaxy_id": "galaxy_id",
        "ra": "ra",
        "dec": "dec",
        "gz2_class": "gz2_class",
        "t01_smooth_or_features_a01_smooth_prob": "smooth",
        "t01_smooth_or_features_a01_smooth_lo": "lo",
        "t01_smooth_or_features_a01_smooth_hi": "hi",
        "t01_smooth_or_features_entropy": "entropy",
        "ood_score": "ood_score",
    }
    rows = Catalog(uri).galaxies(columns=list(shown)).sort_by("galaxy_id")
    counts = sorted(
        rows["gz2_class"].value_counts().to_pylist(), key=lambda row: (-row["counts"], row["values"])
    )
    classes = ", ".join(f"{row['values']} {row['counts']:,}" for row in counts[:SHOWN_CLASSES])
    table = Table()
    for head in shown.values():
        table.add_column(head)
    for row in rows.slice(0, SHOWN_GALAXIES).to_pylist():
        table.add_row(*[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()])
    console = Console(width=110)
    with console.capture() as capture:
        console.print(table)
    mean = pc.mean(rows["t01_smooth_or_features_a01_smooth_prob"]).as_py() or 0.0
    return "\n".join(
        [
            f"{len(rows):,} galaxies; mean fraction of 'smooth' {mean:.3f}; most common classes: {classes}",
            capture.get().rstrip(),
            f"The catalog is the Delta table {uri}/galaxies; in Python, with pandas:",
            f"  deltalake.DeltaTable('{uri}/galaxies').to_pandas()",
        ]
    )
