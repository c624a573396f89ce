"""The rows that several machines measured, side by side, for the page of benchmarks of the documentation.

`make bench` keeps the records of each kind of machine in a folder of their own below `docs/measured`.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.records import Record
from benchmarks.suite import Row

MEASURED = Path(__file__).resolve().parents[1] / "docs" / "measured"
"""A folder for each kind of machine with the records of its benchmarks."""


def keep(record: Path, kind: str, measured: Path = MEASURED) -> None:
    """Keep a record of this kind of machine, in place of an earlier one of the same benchmark.

    Args:
        record: File of the record.
        kind: Kind of the machine, see `benchmarks.suite.kind_of_machine`.
        measured: Folder of all kinds.
    """
    folder = measured / re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(record, folder / record.name)


def sections(measured: Path = MEASURED) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Yield title, head and rows of the table of each benchmark, with two columns for each machine."""
    machines = [
        {path.stem: Record.load(path) for path in sorted(folder.glob("*.json"))}
        for folder in sorted(measured.glob("*/"))
    ]
    for name in sorted({name for records in machines for name in records}):
        having = [records[name] for records in machines if name in records and not records[name].skipped]
        if not having:
            continue
        head = ["measured", "unit"]
        for record in having:
            head += [str(record.machines[0]["kind"]), "compared"]
        whats = dict.fromkeys((row.what, row.unit, row.peer) for record in having for row in record.rows)
        tables = [{(row.what, row.unit, row.peer): row for row in record.rows} for record in having]
        rows = [
            [what, unit, *(cell for found in tables for cell in _cells(found.get((what, unit, peer))))]
            for what, unit, peer in whats
        ]
        yield having[0].about.removesuffix("."), head, rows


def _cells(row: Row | None) -> list[str]:
    if row is None:
        return ["", ""]
    compared = "" if row.ratio is None else f"{row.ratio:.3g} times {row.peer}"
    return [f"{row.sample.median:,.4g} ± {row.sample.spread:.0%}", compared]
