"""The benchmarks: `make bench`, or with names `make bench BENCH='jpeg packed'`.

All benchmarks run in rounds, one after the other, and each prints its rows when it has them. At the end,
`NAME.json` has the measurements of all rounds, and one table shows them. `python -m benchmarks --against
FOLDER` measures nothing: it shows which rows of an earlier run in that folder agree with those of the output.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.page import keep
from benchmarks.records import Record, agreement, joined
from benchmarks.suite import Lab, SkippedError, kind_of_machine, machine

COLUMNS = ("measured", "median", "spread", "unit", "peer", "peer's", "ratio", "target", "reached")
REACHED = {True: "yes", False: "NO", None: ""}
ROUNDS = 2


def available() -> list[str]:
    """Return the names of the benchmarks."""
    return sorted(path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))


def measure(name: str, quick: bool) -> Record:
    """Run one benchmark once, in this process."""
    module = import_module(f"benchmarks.bench_{name}")
    record = Record(name, (module.__doc__ or "").partition("\n")[0], quick, [machine()])
    try:
        with tempfile.TemporaryDirectory(prefix="gax-bench-") as folder:
            record.rows.extend(module.run(Lab(Path(folder), quick)))
    except SkippedError as error:
        record.skipped = str(error)
    return record


def show(records: Sequence[Record], console: Console) -> None:
    """Print records as one table."""
    table = Table(*COLUMNS, title=" ".join(record.benchmark for record in records), title_justify="left")
    for record in records:
        table.add_section()
        if record.skipped:
            table.add_row(f"{record.benchmark}: skipped, {record.skipped}")
        for row in record.rows:
            table.add_row(
                row.what,
                f"{row.sample.median:,.4g}",
                f"± {row.sample.spread:.0%}",
                row.unit,
                row.peer,
                "" if row.peer_sample is None else f"{row.peer_sample.median:,.4g}",
                "" if row.ratio is None else f"{row.ratio:.3g}x",
                str(row.target or ""),
                REACHED[row.reached],
            )
    console.print(table)


def once(name: str, quick: bool, output: Path) -> Record | None:
    """Run one benchmark once, in a process of its own. Return None if it failed."""
    flags = ["--once", "--output", str(output), *(["--quick"] if quick else [])]
    broke = subprocess.run([sys.executable, "-m", "benchmarks", name, *flags], check=False).returncode
    return None if broke else Record.load(output / f"{name}.json")


def main() -> int:
    """Run the named benchmarks. Return 1 if one failed; a missed target is not a failure."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*available(), []], help="benchmarks; all by default")
    parser.add_argument("--quick", action="store_true", help="only check that they work")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"), help="folder of the JSON")
    parser.add_argument("--against", type=Path, help="folder of another run to compare the output with")
    parser.add_argument(
        "--document", action="store_true", help="keep the records for the page of the documentation"
    )
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = given.names or available()
    given.output.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 160)
    if given.against is not None:
        console.print(agreement(given.against, given.output))
        return 0
    if given.once:
        record = measure(names[0], given.quick)
        record.save(given.output / f"{names[0]}.json")
        show([record], console)
        return 0
    rounds: dict[str, list[Record | None]] = {name: [] for name in names}
    for _ in range(1 if given.quick else ROUNDS):
        for name in names:
            with tempfile.TemporaryDirectory(prefix="gax-bench-") as place:
                rounds[name].append(once(name, given.quick, Path(place)))
    records = {name: joined([r for r in done if r is not None]) for name, done in rounds.items() if all(done)}
    for name, record in records.items():
        record.save(given.output / f"{name}.json")
        if given.document and not given.quick:
            keep(given.output / f"{name}.json", kind_of_machine())
    show(list(records.values()), console)
    if broken := sorted(rounds.keys() - records.keys()):
        console.print(f"broken: {', '.join(broken)}")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
