"""A small survey that is cataloged through faults, and the table of what they cost."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from faults import saboteur
from galaxy_images import galaxy_image, write_images
from PIL import Image

from gax_batch import storage
from gax_batch.catalog.snapshots import Catalog
from gax_batch.storage.listing import list_objects

VICTIM = Path(__file__).with_name("victim.py")
TESTS = Path(__file__).parents[1]
TIMEOUT_SECONDS = 500
TOLD_APART = ["unit_id", "run_id"]

Outcome = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True)
class Row:
    """What a kind of fault did: how often, rows lost and doubled, seconds until the catalog was whole."""

    fault: str
    injections: int
    lost: int
    doubled: int
    seconds: float


@dataclass(slots=True)
class Survey:
    """A folder of images, its catalog, and runs to which faults happen."""

    folder: Path
    table: list[Row]
    settings: dict[str, Any] = field(default_factory=dict)
    started: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.plan({})
        self.settings = {
            "input": str(self.folder / "images"),
            "catalog": str(self.folder / "catalog"),
            "unit_size": 5,
            "cpus": 2,
        } | self.settings

    @property
    def catalog(self) -> str:
        return str(self.settings["catalog"])

    def add(self, numbers: range) -> None:
        write_images(self.folder / "images", len(numbers), first=numbers.start)

    def poison(self, number: int, way: str) -> None:
        """Make one galaxy poisonous to decoders, in one of the saboteur's ways."""
        image = self.folder / "images" / f"{number:06d}.jpg"
        galaxy_image(number).save(image, quality=92, comment=saboteur.MARK + way.encode())

    def poison_for_models(self, number: int) -> None:
        """Make one galaxy poisonous to the stand-in for the models: it is red all over."""
        image = Image.new("RGB", (106, 106), (250, 10, 10))
        image.paste((225, 20, 20), (40, 40, 60, 60))
        image.save(self.folder / "images" / f"{number:06d}.jpg", quality=95)

    def plan(self, faults: dict[str, int]) -> None:
        """What is to befall workers, by fault: how often."""
        (self.folder / "plan").write_text(json.dumps(faults))

    def strikes(self) -> list[tuple[float, str]]:
        """What has befallen workers: when, what."""
        file = self.folder / "strikes"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(float(when), fault) for when, fault in (line.split(maxsplit=1) for line in lines)]

    def start(self, **told: Any) -> "subprocess.Popen[str]":
        """Start a run in a process of its own; `told` is as for `victim.py`, and may have `environment`."""
        environment = os.environ | {"GAX_FAULTS": str(self.folder)} | told.pop("environment", {})
        settings = self.settings | told.pop("settings", {})
        command = [
            *told.pop("before", ()),
            sys.executable,
            str(VICTIM),
            json.dumps({"settings": settings} | told),
        ]
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.started.append(process)
        return process

    def run(self, **told: Any) -> Outcome:
        """A whole run."""
        process = self.start(**told)
        said, errors = process.communicate(timeout=TIMEOUT_SECONDS)
        return Outcome(process.args, process.returncode, said, errors)

    def close(self) -> None:
        """End what still runs."""
        for process in self.started:
            with process:
                process.kill()
        saboteur.remove_memory_groups()

    def succeed(self, **told: Any) -> str:
        """A whole run that must end well; what it said."""
        done = self.run(**told)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    def rows(self) -> pa.Table:
        """What is cataloged, but for what differs from run to run."""
        return Catalog(self.catalog).galaxies().sort_by("galaxy_id").drop_columns(TOLD_APART)

    def rejects(self) -> dict[str, tuple[str, str]]:
        """Stage and reason of each reject, by galaxy."""
        rejects = Catalog(self.catalog).rejects().to_pylist()
        return {row["galaxy_id"]: (row["stage"], row["reason"]) for row in rejects}

    def balance(self, fault: str, injections: int, since: float) -> None:
        """Add a line to the table, and require that the catalog is whole: each galaxy once."""
        seconds = time.time() - since
        planned = {image.stem for image in (self.folder / "images").iterdir()}
        catalog = Catalog(self.catalog)
        found = Counter(catalog.galaxies(["galaxy_id"])["galaxy_id"].to_pylist())
        found.update(catalog.rejects()["galaxy_id"].to_pylist())
        doubled = sum(count - 1 for count in found.values())
        self.table.append(Row(fault, injections, len(planned - found.keys()), doubled, seconds))
        assert injections > 0, fault
        assert (found.keys() - planned, self.table[-1].lost, doubled) == (set(), 0, 0), fault

    def balance_strikes(self) -> None:
        """`balance` of all that has befallen workers, by fault."""
        strikes = self.strikes()
        for fault, count in Counter(fault for _, fault in strikes).items():
            self.balance(fault, count, max(when for when, name in strikes if name == fault))


def parts(catalog: str) -> int:
    """How many parts are stored, committed or not."""
    folder = storage.join(storage.normalize_uri(catalog), "galaxies", "parts")
    return len(list_objects(folder, missing_ok=True))
