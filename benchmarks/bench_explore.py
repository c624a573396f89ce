"""Pages of `gax explore` over HTTP for a million galaxies: filters, orders, the map, the cards."""

import hashlib
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import pyarrow as pa
from explorer_server import serving

from benchmarks.suite import Lab, Row, Sample, Target
from gax_batch import gz2
from gax_batch.catalog.parts import write_unit
from gax_batch.catalog.schema import GALAXIES, REJECTS
from gax_batch.catalog.snapshots import Catalog

GALAXIES_PER_PART = 4_096
PARTS = 245
IN_A_SECOND = Target(1.0, at_most=True)
SPIRAL = "t04_spiral_a08_spiral"
QUESTIONS: dict[str, dict[str, object]] = {
    "everything": {},
    "spirals, the most uncertain first": {"answer": SPIRAL, "prob_min": 0.5, "order": "most_uncertain"},
    "an answer that is not cached": {
        "answer": "t03_bar_a06_bar",
        "prob_min": 0.3,
        "order": "most_probable",
    },
    "a cone": {"ra": 150, "dec": 2, "radius": 5},
    "an expression": {"where": f"{SPIRAL}_prob > 0.4 AND gz2_class LIKE 'S%' AND flags & 32 = 0"},
    "an id": {"id": "0100-0100"},
}


def rows(number: int) -> pa.Table:
    """Return a part's galaxies, all over the sky, with fractions that are consistent with the tree."""
    rng = np.random.default_rng(number)
    count = GALAXIES_PER_PART
    prob = gz2.cumulative(gz2.conditional(rng.gamma(0.6, size=(count, gz2.N_ANSWERS)).astype(np.float32)))
    values: dict[str, Any] = {
        "galaxy_id": [f"{number:04}-{row:04}" for row in range(count)],
        "ra": rng.uniform(0, 360, count),
        "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, count))),
        "gz2_class": gz2.gz2_class(prob),
        "flags": rng.choice([0, 1, 32], count),
        "source_uri": [f"file:///survey/{number:04}.parquet#row={row}" for row in range(count)],
    }
    spread = {"prob": 0, "lo": -0.06, "hi": 0.06, "svr": 0.02}
    for column, answer in enumerate(gz2.ANSWERS):
        for quantity, shift in spread.items():
            noise = rng.uniform(0, 2, count) * shift
            values[f"{answer}_{quantity}"] = np.clip(prob[:, column] + noise, 0, 1)
    filled = []
    for field in GALAXIES:
        if field.name in values:
            filled.append(pa.array(values[field.name], field.type))
        elif field.type == pa.float32():
            filled.append(pa.array(rng.uniform(0, 0.1, count), field.type))
        else:
            filled.append(pa.array(["1"] * count, field.type))
    return pa.Table.from_arrays(filled, schema=GALAXIES)


def simulate(catalog: str, parts: int) -> None:
    """Commit parts of galaxies that do not have images."""
    made = []
    for number in range(parts):
        unit = hashlib.sha256(str(number).encode()).hexdigest()[:16]
        none = REJECTS.empty_table()
        part = rows(number)
        made.append(write_unit(catalog, "s", part, none, unit_id=unit, fingerprint="f", planned=len(part)))
    Catalog(catalog).commit(made, run_id="run-1", metadata={})


def ask(address: str, values: dict[str, object]) -> float:
    """Return the seconds that one page takes."""
    start = time.perf_counter()
    with urlopen(f"{address}?{urlencode(values)}") as answer:  # noqa: S310 (loopback)
        assert b'class="card"' in answer.read()
    return time.perf_counter() - start


def run(lab: Lab) -> list[Row]:
    """Return rows for each request over HTTP, first when it is new and then again with another page."""
    place = Path(lab.folder) / "catalog"
    parts = max(PARTS // 20, 2) if lab.quick else PARTS
    simulate(str(place), parts)
    start = time.perf_counter()
    found = []
    with serving(str(place)) as address:
        found.append(
            Row(f"start, {parts * GALAXIES_PER_PART:,} galaxies", "s", Sample((time.perf_counter() - start,)))
        )
        for name, values in QUESTIONS.items():
            first = Sample((ask(address, values),))
            found.append(Row(f"{name}, requested for the first time", "s", first, target=IN_A_SECOND))
        for name, values in QUESTIONS.items():
            # Use another limit each time, so that nothing is cached.
            bounds = [{"measure": "ood", "measure_max": 0.9 + turn / 1000} for turn in range(lab.turns)]
            each = Sample(tuple(ask(address, values | bound) for bound in bounds))
            found.append(Row(f"{name}, with a new bound", "s", each, target=IN_A_SECOND))
    return found
