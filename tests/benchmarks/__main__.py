"""The benchmarks: `make bench`, or with names `make bench BENCH='jpeg packed'`.

Each prints its rows when it has them and writes `NAME.json`; in the end all are shown in one table.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.suite import Lab, Row, SkippedError, machine
from rich.console import Console
from rich.table import Table

COLUMNS = ("measured", "median", "spread", "unit", "peer", "peer's", "ratio", "target", "reached")
REACHED = {True: "yes", False: "NO", None: ""}


def available() -> list[str]:
    """The benchmarks' names."""
    return sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def measure(name: str, quick: bool, output: Path) -> None:
    """Run one benchmark in this process."""
    module = import_module(f"benchmarks.bench_{name}")
    record: dict[str, Any] = {
        "benchmark": name,
        "about": (module.__doc__ or "").partition("\n")[0],
        "quick": quick,
        "machine": machine(),
        "skipped": None,
        "rows": [],
    }
    try:
        with tempfile.TemporaryDirectory(prefix="gax-bench-") as folder:
            for row in module.run(Lab(Path(folder), quick)):
                record["rows"].append(as_json(row))
    except SkippedError as error:
        record["skipped"] = str(error)
    (output / f"{name}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def as_json(row: Row) -> dict[str, Any]:
    """A row with everything that follows from it."""
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


def show(records: Sequence[dict[str, Any]], console: Console) -> None:
    """Print records as one table."""
    table = Table(*COLUMNS, title=" ".join(r["benchmark"] for r in records), title_justify="left")
    for record in records:
        table.add_section()
        if record["skipped"]:
            table.add_row(f"{record['benchmark']}: skipped, {record['skipped']}")
        for row in record["rows"]:
            table.add_row(
                row["what"],
                f"{row['median']:,.4g}",
                f"± {row['spread']:.0%}",
                row["unit"],
                row["peer"],
                "" if row["peer_median"] is None else f"{row['peer_median']:,.4g}",
                "" if row["ratio"] is None else f"{row['ratio']:.3g}x",
                row["asked"] or "",
                REACHED[row["reached"]],
            )
    console.print(table)


def main() -> int:
    """Measure what was named; 1 if a benchmark broke (a target that is missed is no error)."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*available(), []], help="which; all by default")
    parser.add_argument("--quick", action="store_true", help="only see that they work")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"), help="folder of the JSON")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 160)
    if len(given.names) == 1:
        measure(given.names[0], given.quick, given.output)
        show([json.loads((given.output / f"{given.names[0]}.json").read_text())], console)
        return 0
    broken, records = [], []
    for name in given.names or available():
        flags = ["--output", str(given.output), *(["--quick"] if given.quick else [])]
        if subprocess.run([sys.executable, "-m", "benchmarks", name, *flags], check=False).returncode:
            broken.append(name)
        else:
            records.append(json.loads((given.output / f"{name}.json").read_text()))
    show(records, console)
    if broken:
        console.print(f"broken: {', '.join(broken)}")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
