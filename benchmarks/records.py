"""Results of benchmarks as JSON: a round of one benchmark, joined rounds, and two runs compared."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.suite import Row, Sample, Target, pooled

# With two values each, ranges of the same quantity are disjoint in every third pair of runs.
COMPARABLE = 3


@dataclass(slots=True)
class Record:
    """Results of one benchmark.

    Attributes:
        benchmark: Name of the benchmark.
        about: First line of its documentation.
        quick: Whether it was only checked that it works.
        machines: Machine and time of each round.
        skipped: Reason why it was skipped, if it was.
        rows: Rows of the table.
    """

    benchmark: str
    about: str
    quick: bool
    machines: list[dict[str, object]]
    skipped: str | None = None
    rows: list[Row] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write the record, with the values that are derived from its rows."""
        rows = [_as_json(row) for row in self.rows]
        text = json.dumps(asdict(self) | {"rows": rows}, indent=1, ensure_ascii=False)
        path.write_text(text + "\n")

    @classmethod
    def load(cls, path: Path) -> "Record":
        """Read a record that `save` wrote."""
        values = json.loads(path.read_text())
        return cls(**values | {"rows": [_row(row) for row in values["rows"]]})


def joined(rounds: Sequence[Record]) -> Record:
    """Return one record of several rounds of the same benchmark."""
    first = rounds[0]
    machines = [machine for record in rounds for machine in record.machines]
    rows = [pooled(rows) for rows in zip(*(record.rows for record in rounds), strict=True)]
    return Record(first.benchmark, first.about, first.quick, machines, first.skipped, rows)


def agreement(first: Path, second: Path) -> Table:
    """Return a table of the rows that two runs measured often enough for a spread, and whether they agree."""
    table = Table("measured", "unit", "first", "second", "agree", "ratios", "agree")
    found = []
    before, after = ({path.name for path in place.glob("*.json")} for place in (first, second))
    for name in sorted(before & after):
        runs = [Record.load(place / name) for place in (first, second)]
        table.add_section()
        for ours, theirs in zip(*(run.rows for run in runs), strict=True):
            if len(ours.sample.values) >= COMPARABLE:
                values = _beside(ours.sample, theirs.sample)
                found.append(values[-1])
                table.add_row(ours.what, ours.unit, *values, *_ratios(ours, theirs))
    table.caption = f"{found.count('yes')} of {len(found)} agree within their spread"
    return table


def _beside(first: Sample, second: Sample) -> tuple[str, str, str]:
    found = [f"{sample.median:,.4g} ± {sample.spread:.0%}" for sample in (first, second)]
    return found[0], found[1], "yes" if first.agrees(second) else "NO"


def _ratios(first: Row, second: Row) -> tuple[str, str]:
    if first.ratios is None or second.ratios is None:
        return "", ""
    before, after, agree = _beside(first.ratios, second.ratios)
    return f"{before}, {after}", agree


def _as_json(row: Row) -> dict[str, Any]:
    peer = row.peer_sample
    return {
        **asdict(row),
        "median": row.sample.median,
        "spread": row.sample.spread,
        "peer_median": None if peer is None else peer.median,
        "ratio": row.ratio,
        "asked": None if row.target is None else str(row.target),
        "reached": row.reached,
    }


def _row(values: dict[str, Any]) -> Row:
    peer, target = values["peer_sample"], values["target"]
    return Row(
        values["what"],
        values["unit"],
        Sample(tuple(values["sample"]["values"])),
        values["peer"],
        None if peer is None else Sample(tuple(peer["values"])),
        None if target is None else Target(**target),
    )
