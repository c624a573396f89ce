"""Write a snapshot of a catalog as one HTML file, without scripts and without references to the network."""

import json
import logging
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import pyarrow.compute as pc

from gax_batch import __version__, gz2, storage
from gax_batch.analysis.combine import ALL
from gax_batch.analysis.population import Fraction, population
from gax_batch.catalog import layout
from gax_batch.catalog.delta import Entry
from gax_batch.catalog.diff import Changes, compare
from gax_batch.catalog.snapshots import Catalog, open_existing, read_run_record
from gax_batch.catalog.sums import EXPECTED, MOST_LIKELY
from gax_batch.cluster.progress import duration
from gax_batch.errors import UsageError
from gax_batch.models.bundle import load_bundle
from gax_batch.models.domain import warning_lines
from gax_batch.rejects import MEANING, Reason
from gax_batch.viewer.report import figures
from gax_batch.viewer.report.galleries import galleries
from gax_batch.viewer.report.gather import COLUMNS, SHOWN, SnapshotSummary, gather

logger = logging.getLogger(__name__)

SHOWN_RUNS = 30
EXAMPLES = 3


@dataclass(slots=True)
class Rejects:
    """Rejects by reason, the first examples of each, and their meaning."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def rows(self) -> list[tuple[str, str, int, list[dict[str, Any]]]]:
        """Return each reason with its meaning, count and examples, the most frequent reason first."""
        known = {str(reason) for reason in Reason}
        return [
            (reason, MEANING[Reason(reason)] if reason in known else "", count, self.examples[reason])
            for reason, count in self.counts.most_common()
        ]


def write_report(uri: str, version: int | None, output: str | None, sources: str | None = None) -> str:
    """Write the page of a snapshot, and log where it is.

    Args:
        uri: URI of the catalog.
        version: Number of the snapshot; the newest if None.
        output: File or URI to write; if None, beside the record of the run that made the snapshot.
        sources: Current place of the survey's files; see `gax_batch.open_catalog`.

    Returns:
        URI of the page.

    Raises:
        UsageError: The snapshot does not exist or cannot be read completely, or the output cannot be
            written.
        TransientError: The store kept failing.
    """
    catalog = open_existing(uri, version)
    history = catalog.history()
    place = storage.normalize_uri(output) if output else _place(catalog, history)
    page = render(catalog, history, sources)
    try:
        storage.write_bytes(place, page.encode())
    except OSError as error:
        raise UsageError(f"{place} cannot be written: {error}; name another --output") from error
    logger.info(f"snapshot {catalog.version} of {catalog.uri}: {len(page) / 1e6:.1f} MB at {place}")
    return place


def render(catalog: Catalog, history: Sequence[Entry], sources: str | None = None) -> str:
    """Return the HTML of the page."""
    changes, unchanged = _changes(catalog, history)
    moved = [] if changes is None else [galaxy.galaxy_id for galaxy in changes.most]
    found = gather(catalog.batches(COLUMNS), moved)
    runs = _runs(catalog, history)
    record = next((run["record"] for run in reversed(runs) if run["run_id"] == _run_id(history)), None)
    return (
        _environment()
        .get_template("report.html")
        .render(
            catalog=catalog.uri,
            entry=history[0],
            facts=dict(history[0].facts),
            made=datetime.now(UTC),
            release=__version__,
            definition=gz2.DEFINITION,
            found=found,
            cutouts_accounted=sum(catalog.planned().values()),
            units=len(catalog.parts()),
            rejects=_rejects(catalog),
            record=record,
            record_json=json.dumps(record, indent=2, ensure_ascii=False) if record else None,
            runs=runs,
            compared=_compared(runs),
            drawings=_drawings(found, runs),
            population=_population(catalog),
            calibration=_calibration(found, record),
            galleries=galleries(catalog.uri, found, changes, unchanged, sources),
            changes=changes,
            duration=duration,
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["percent"] = lambda value: f"{100 * value:.1f} %"
    return environment


def _place(catalog: Catalog, history: Sequence[Entry]) -> str:
    run_id = _run_id(history)
    if run_id is None:
        raise UsageError(f"snapshot {catalog.version} is not of a run; name the page's file with --output")
    return layout.run_report(catalog.uri, run_id)


def _run_id(history: Sequence[Entry]) -> str | None:
    name = history[0].facts.get("run_id")
    return None if name is None else str(name)


def _runs(catalog: Catalog, history: Sequence[Entry]) -> list[dict[str, Any]]:
    """Return the runs of the last snapshots that have records, the oldest first."""
    runs = []
    for entry in reversed(history[:SHOWN_RUNS]):
        run_id = str(entry.facts.get("run_id", ""))
        try:
            record = read_run_record(catalog.uri, run_id)
            seconds = dict(record["seconds"])
            total = seconds.pop("total")
            counts = record["counts"]
            runs.append(
                {
                    "run_id": run_id,
                    "record": record,
                    "started": str(record["started"]),
                    "rate": record["galaxies_per_second"],
                    "stages": seconds,
                    "total": total,
                    "work": record["seconds_of_work"],
                    "counts": counts,
                    "memory": record["peak_memory_mib"],
                }
            )
        except (OSError, ValueError, KeyError):
            continue
    return runs


def _compared(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare the images of each run with the reference of its bundle, if it has one."""
    domains = [(run["run_id"], run["record"].get("domain")) for run in runs]
    return [
        {"run_id": run_id, **domain, "warning": [line.strip() for line in warning_lines(domain)]}
        for run_id, domain in reversed(domains)
        if domain
    ]


def _rejects(catalog: Catalog) -> Rejects:
    found = Rejects()
    for rows in catalog.reject_batches():
        found.counts.update(rows["reason"].to_pylist())
        for reason in set(rows["reason"].to_pylist()):
            kept = found.examples.setdefault(reason, [])
            if len(kept) < EXAMPLES:
                mine = rows.filter(pc.equal(rows["reason"], reason))
                kept += mine.slice(0, EXAMPLES - len(kept)).to_pylist()
    return found


def _changes(catalog: Catalog, history: Sequence[Entry]) -> tuple[Changes | None, str]:
    """Return the changes of the snapshot, or None and the reason why they are not known."""
    earlier = next((e for e in history[1:] if "run_id" in e.facts), None)
    if earlier is None:
        return None, "This is the first snapshot, so it cannot be compared with another."
    try:
        before = open_existing(catalog.uri, earlier.version)
        with tempfile.TemporaryDirectory(prefix="gax-") as folder:
            changes = compare(before, catalog, Path(folder), most=SHOWN)
    except UsageError as error:
        return None, f"Snapshot {earlier.version} can no longer be compared with: {error}"
    moved = f"No probability moved since snapshot {earlier.version}."
    return changes, "" if changes.most else moved


def _drawings(found: SnapshotSummary, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    drawings: dict[str, Any] = {"questions": {}, "sky": [], "runs": []}
    if runs:
        drawings["runs"] = [figures.rates(runs), figures.stages(runs)]
    if found.placed:
        layers = ["density"] if found.without_interval else ["density", "uncertainty"]
        drawings["sky"] = [figures.sky(found, layer) for layer in layers]
    if found.galaxies:
        drawings["questions"] = {
            gz2.in_words(question.name): figures.distribution(found, question) for question in gz2.QUESTIONS
        }
    return drawings


def _population(catalog: Catalog) -> dict[str, Any]:
    """Return the fractions of the whole snapshot by question, or the reason why it has none."""
    try:
        rows = population(catalog.uri, version=catalog.version)
    except UsageError as error:
        return {"missing": str(error), "questions": {}}
    of_all: dict[str, dict[tuple[str, str], Fraction]] = {}
    for row in rows:
        of_all.setdefault(row.answer, {})[row.statistic, row.of] = row
    questions = {
        gz2.in_words(question.name): [
            (
                gz2.in_words(question.answers[column - question.start]),
                of_all[gz2.ANSWERS[column]][EXPECTED, ALL],
                of_all[gz2.ANSWERS[column]][MOST_LIKELY, ALL],
            )
            for column in range(question.start, question.stop)
        ]
        for question in gz2.QUESTIONS
    }
    return {"missing": None, "questions": questions}


def _calibration(found: SnapshotSummary, record: dict[str, Any] | None) -> dict[str, Any]:
    """Draw the numbers on held-out galaxies in the bundle's manifest, or return why it has none."""
    uri = None if record is None else record["settings"].get("bundle")
    try:
        bundle = load_bundle(uri)
    except UsageError as error:
        return {"missing": f"The bundle cannot be read: {error}"}
    if bundle.bundle_id not in found.bundles:
        return {"missing": f"The available bundle, {bundle.bundle_id}, made none of these galaxies."}
    metrics: dict[str, Any] = bundle.manifest.get("metrics", {})
    shown: dict[str, Any] = {"bundle_id": bundle.bundle_id, "metrics": metrics, "drawings": []}
    intervals: dict[str, Any] = metrics.get("intervals", {})
    if intervals:
        levels = sorted((float(level), values["coverage"]) for level, values in intervals.items())
        shown["drawings"].append(figures.coverage(levels))
    if "0.9" in intervals:
        held = {name: q["coverage"] for name, q in intervals["0.9"]["questions"].items()}
        shown["drawings"].append(figures.coverage_by_question(held))
    if risk := metrics.get("risk_coverage"):
        shown["drawings"].append(figures.risk_coverage(risk))
    return shown
