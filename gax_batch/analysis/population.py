"""Survey-wide fractions of each morphology, with an interval that includes the uncertainty of the model.

Two errors are distinguished. The *model* error is the spread of the population's fraction over draws. All
galaxies share it: more galaxies do not lower it, but a better model does. The *sampling* error is that of
finitely many galaxies which represent all galaxies like them. It decreases with the root of their number,
and does not apply if the survey itself is the population. Neither term contains errors that all draws share,
such as those that depend on image quality: see `CAUTION`.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from gax_batch import gz2
from gax_batch.analysis.combine import ALL, ASKED, Estimate, Moments, estimate
from gax_batch.catalog import companions, layout
from gax_batch.catalog.snapshots import Catalog, open_existing
from gax_batch.catalog.sums import (
    EVERYTHING,
    EXPECTED,
    HEALPIX,
    MOST_LIKELY,
    PRODUCT,
    SQUARE,
    SUMS,
    Doubles,
    add_up,
    values_of,
)
from gax_batch.errors import UsageError
from gax_batch.models.nesting import DEFAULT, Nesting
from gax_batch.runner.fingerprint import Provenance, numbers_digest

CAUTION = (
    "A trend with redshift, apparent size, brightness or image quality does not show that galaxies differ: "
    "blur and noise hide arms and bars from the model as from volunteers. No interval here includes that."
)
"""Printed below every table, since any grouping can correlate with one of these quantities."""


@dataclass(frozen=True, slots=True)
class Fraction:
    """One fraction of one group of galaxies. Unknown values are None.

    Attributes:
        grouping: `all`, `healpix<order>` or a column's name.
        bin: HEALPix cell (nested), or number of the column's bin; None for galaxies in none.
        low: Lower edge of the column's bin.
        high: Upper edge of the column's bin.
        galaxies: Number of galaxies.
        question: Question of the answer.
        answer: One of `gz2.ANSWERS`.
        statistic: `expected` for a fraction of the volunteers, the mean of the galaxies' expected fractions;
            or `most_likely` for a fraction of the galaxies, counted by the most likely path through the tree.
        of: `all` of them, or those that are `asked` the question.
        value: The fraction, a mean over draws.
        model_std: Standard error from the uncertainty of the model, see `combine.estimate`.
        sampling_std: Standard error from the finite number of galaxies.
        lo: Lower end of the interval.
        hi: Upper end of the interval.
    """

    grouping: str
    bin: int | None
    low: float | None
    high: float | None
    galaxies: int
    question: str
    answer: str
    statistic: str
    of: str
    value: float | None
    model_std: float | None
    sampling_std: float | None
    lo: float | None
    hi: float | None


def population(
    catalog: str,
    *,
    by: str | None = None,
    question: str | None = None,
    level: float = 0.9,
    version: int | None = None,
) -> list[Fraction]:
    """Estimate a catalog's fractions from the sums that its units have stored.

    Args:
        catalog: URI of the catalog.
        by: `healpix`, or a column that has bins; None for all galaxies together.
        question: One of `gz2.QUESTION_NAMES`; None for all of them.
        level: Probability of the intervals.
        version: Number of the snapshot; None for the newest.

    Returns:
        Fractions by bin, question, answer, statistic and population (`of`).

    Raises:
        UsageError: The catalog has no sums, or the grouping or question does not exist.
        FatalError: A file of the catalog is unreadable.
        TransientError: The store kept failing.
    """
    questions = gz2.QUESTIONS if question is None else (gz2.find_question(question),)
    opened = open_existing(catalog, version)
    keys = _coherent_keys(opened)
    grouping = EVERYTHING if by is None else _find_grouping(opened, keys, by)
    sums = add_up(_stored_sums(opened, keys, grouping))
    if not len(sums):
        raise UsageError(
            f"{catalog} has no draws to estimate from: it has no galaxies, or was made without the Bayesian "
            "CNN; add bayesian to --models and run again"
        )
    nesting = _nesting(opened, len(pc.unique(sums["draw"].drop_null())))
    return [row for part in _by_bin(sums) for row in _fractions(part, questions, level, nesting)]


def render_table(rows: Sequence[Fraction], level: float) -> str:
    """Return the fractions as a table for a terminal."""
    table = Table()
    grouped = rows[0].grouping != EVERYTHING
    heads = [*([rows[0].grouping, "galaxies"] if grouped else []), "answer"]
    for head in heads:
        table.add_column(head, overflow="fold")
    for head in (
        "of volunteers",
        "model",
        "sampling",
        "of those asked",
        "most likely for",
        "model",
        "sampling",
    ):
        table.add_column(head, justify="right")
    by_answer: dict[tuple[int | None, str], dict[tuple[str, str], Fraction]] = {}
    for row in rows:
        by_answer.setdefault((row.bin, row.answer), {})[row.statistic, row.of] = row
    for (_, answer), found in by_answer.items():
        mean, count = found[EXPECTED, ALL], found[MOST_LIKELY, ALL]
        table.add_row(
            *([_bin_name(mean), f"{mean.galaxies:,}"] if grouped else []),
            answer,
            _interval(mean),
            _error(mean.model_std),
            _error(mean.sampling_std),
            _interval(found[EXPECTED, ASKED]),
            _interval(count),
            _error(count.model_std),
            _error(count.sampling_std),
        )
    console = Console(width=max(180, Console().width))
    with console.capture() as capture:
        console.print(table)
        galaxies = "" if grouped else f"{rows[0].galaxies:,} galaxies. "
        console.print(
            f"{galaxies}Fractions ({gz2.DEFINITION.name}) with {level:.0%} intervals. model: standard error "
            "from the uncertainty of the model, shared by all galaxies; sampling: that from the finite "
            "number of galaxies. The interval includes both."
        )
        console.print(CAUTION)
    return capture.get().rstrip()


def render_csv(rows: Sequence[Fraction]) -> str:
    """Return the fractions as CSV with a header; empty cells for None."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Fraction)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue().rstrip()


def render_json(rows: Sequence[Fraction]) -> str:
    """Return the fractions as one JSON array."""
    return json.dumps([asdict(row) for row in rows], indent=2)


def _coherent_keys(catalog: Catalog) -> list[str]:
    """Return the keys of the parts, after checking that draw k is the same network in all of them."""
    names = catalog.parts()
    settings = {numbers_digest(name.settings_fingerprint) for name in names}
    if len(settings) > 1:
        raise UsageError(
            f"units of {catalog.uri} were made with {len(settings)} different models or settings, whose "
            "draws are different networks; run `gax run` until the catalog is complete"
        )
    return [name.key for name in names]


def _nesting(catalog: Catalog, draws: int) -> Nesting:
    """Return how the draws of the catalog share passes; by default where the record of its run is lost."""
    made = Provenance(catalog).made(catalog.parts()[0].settings_fingerprint)
    if made is None or made.settings.target_error is not None:
        return replace(DEFAULT, draws=draws)
    return Nesting.of(draws, made.settings.passes)


def _stored_sums(catalog: Catalog, keys: Sequence[str], grouping: str) -> Iterator[pa.Table]:
    """Yield the sums of one grouping. Refuse units with galaxies that were not summed by it."""
    galaxies = {name.key for name, rows in catalog.galaxies_by_part().items() if rows}
    lacking = 0
    tables = companions.read(catalog.uri, layout.POPULATION, keys, SUMS, grouping=grouping)
    for key, rows in zip(keys, tables, strict=True):
        lacking += grouping != EVERYTHING and not len(rows) and key in galaxies
        yield rows
    if lacking:
        raise UsageError(
            f"{lacking:,} of {len(keys):,} units of {catalog.uri} were not summed by '{grouping}'; run "
            "`gax run` with the same population_bins and population_order and --redo-companions"
        )


def _find_grouping(catalog: Catalog, keys: Sequence[str], by: str) -> str:
    for key in keys:
        (rows,) = companions.read(catalog.uri, layout.POPULATION, [key], SUMS, columns=["grouping"])
        known = [name for name in pc.unique(rows["grouping"]).to_pylist() if name != EVERYTHING]
        for name in known:
            if by == name or (by == HEALPIX and name.startswith(HEALPIX)):
                return str(name)
        if len(rows):
            there = ", ".join(HEALPIX if name.startswith(HEALPIX) else name for name in known) or "nothing"
            raise UsageError(
                f"{catalog.uri} was summed by {there}, not by '{by}'; to change that, set population_bins or "
                "population_order and run `gax run` with --redo-companions"
            )
    return EVERYTHING


def _by_bin(sums: pa.Table) -> Iterator[pa.Table]:
    bins = sums["bin"]
    for value in pc.unique(bins):
        yield sums.filter(pc.equal(bins, value) if value.is_valid else pc.is_null(bins))


def _fractions(
    sums: pa.Table, questions: Sequence[gz2.Question], level: float, nesting: Nesting
) -> Iterator[Fraction]:
    moments = _moments(sums)
    first = sums.slice(0, 1).to_pylist()[0]
    label = (first["grouping"], first["bin"], first["low"], first["high"], moments.galaxies)
    estimates = {
        (statistic, of): estimate(moments, statistic, of, level, nesting)
        for statistic in (EXPECTED, MOST_LIKELY)
        for of in (ALL, ASKED)
    }
    for question in questions:
        for index in range(question.start, question.stop):
            for (statistic, of), numbers in estimates.items():
                shown = [_number(getattr(numbers, field.name)[index]) for field in fields(Estimate)]
                yield Fraction(*label, question.name, gz2.ANSWERS[index], statistic, of, *shown)


def _moments(sums: pa.Table) -> Moments:
    def of(statistic: str) -> Doubles:
        return values_of(sums.filter(pc.equal(sums["statistic"], statistic)))

    return Moments(sums["galaxies"][0].as_py(), of(EXPECTED), of(MOST_LIKELY), of(SQUARE)[0], of(PRODUCT)[0])


def _number(value: np.float64) -> float | None:
    return None if np.isnan(value) else float(value)


def _bin_name(row: Fraction) -> str:
    if row.bin is None:
        return "null"
    return str(row.bin) if row.low is None else f"{row.low:g} to {row.high:g}"


def _interval(row: Fraction) -> str:
    if row.value is None:
        return "-"
    return f"{row.value:.4f}" + ("" if row.lo is None else f" [{row.lo:.4f}, {row.hi:.4f}]")


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
