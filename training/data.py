"""The training set: images and the labels of all tables about them, in three disjoint samples.

The numbers of two numberings of galaxies collide (Galaxy Zoo 2's asset ids and the challenge's GalaxyIDs), so
the key of a galaxy contains both: `GalaxyID:100053`. A table of twins lists galaxies of the two numberings
that are the same image. Twins are in the same sample. A hash of the galaxy's key determines the sample, not
the order or number of galaxies. A galaxy therefore stays in its sample when more are added.
"""

import csv
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch.analysis.evaluation.image_files import Place, list_images
from gax_batch.analysis.evaluation.training_set import digest_of
from gax_batch.analysis.labels import (
    CHALLENGE_VOTES,
    DEBIASED,
    WEIGHTED,
    Labels,
    join,
    read_labels,
)
from gax_batch.errors import UsageError
from gax_batch.gz2 import N_ANSWERS
from gax_batch.imaging.cutout import IMAGE_SIDE
from training.images import FINE_SIDE, WINDOW_SIDE, digest, write_windows

Float = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]
TABLES = (
    "solutions_37.csv",
    "solutions_17.csv",
    "training_solutions_rev1.csv",
    "class5.csv",
    "class5_none.csv",
    "argmax.csv",
    "hart16_debiased.csv",
    "hart16_votes.csv",
)
TWINS = "gz2_twins.csv"
IMAGES = ("images", "images_training_rev1", "images.zip", "images_training_rev1.zip")
TRAIN, CALIBRATE, REPORT = range(3)
# Percent of the galaxies that train, and that train or calibrate. Only galaxies with the challenge's own
# fractions are a representative sample. Some of the others are kept for the clear classes.
SHARES = {True: (52, 80), False: (92, 96)}
# Hart et al. 2016's debiased fractions differ from the challenge's by an RMSE of 0.086 on 13 galaxies with
# both. Their squared errors have the weight of fractions whose scatter is larger by 0.086.
HART_TRUST = 0.57
SURVEY = "GalaxyID"
_SMALLEST_SAMPLE = 2


@dataclass(frozen=True, slots=True)
class Galaxies:
    """Labeled galaxies, row by row.

    Attributes:
        keys: `numbering:id` of each galaxy.
        cumulative: Debiased cumulative fractions, float32 `[N, 37]`; NaN if unknown.
        trust: Weight of the errors of these fractions, float32 `[N]`; 1 for the challenge's own.
        weighted: Cumulative fractions of the weighted votes, float32 `[N, 37]`; NaN if unknown.
        volunteers: Number of people who gave the weighted votes, float32 `[N]`; 0 if unknown.
        classes: int8 `[N]`, see `gax_batch.analysis.labels.Labels`.
        strict: bool `[N]`, see `gax_batch.analysis.labels.Labels`.
        largest: int8 `[N]`, see `gax_batch.analysis.labels.Labels`.
        sample: int8 `[N]`, `TRAIN`, `CALIBRATE` or `REPORT`.
        windows: Cutouts with a margin for augmentation, uint8 `[N, 106, 106, 3]`; may be a mapped file.
        fine: The same sky at twice the resolution, uint8 `[N, 212, 212, 3]`; may be a mapped file.
        twins: The other key of galaxies that have two.
    """

    keys: list[str]
    cumulative: Float
    trust: Float
    weighted: Float
    volunteers: Float
    classes: npt.NDArray[np.int8]
    strict: npt.NDArray[np.bool_]
    largest: npt.NDArray[np.int8]
    sample: npt.NDArray[np.int8]
    windows: npt.NDArray[np.uint8]
    fine: npt.NDArray[np.uint8]
    twins: dict[str, str]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def representative(self) -> npt.NDArray[np.bool_]:
        """Whether the challenge's own fractions, all or some, are known, bool `[N]`."""
        return np.asarray(np.isfinite(self.cumulative).any(axis=1) & (self.trust == 1))

    @property
    def complete(self) -> npt.NDArray[np.bool_]:
        """Whether all 37 of the challenge's own fractions are known, bool `[N]`."""
        return np.asarray(np.isfinite(self.cumulative).all(axis=1) & (self.trust == 1))

    def rows(self, sample: int) -> Rows:
        """Return the galaxies of a sample."""
        return np.flatnonzero(self.sample == sample)

    def cutouts(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """Return the centers of windows, uint8 `[len(rows), 64, 64, 3]`, as inference decodes them."""
        margin = (WINDOW_SIDE - IMAGE_SIDE) // 2
        inner = slice(margin, margin + IMAGE_SIDE)
        return np.ascontiguousarray(self.windows[rows, inner, inner])

    def labels(self, rows: Rows) -> Labels:
        """Return the labels of some galaxies, with the challenge's own fractions only."""
        own = np.where(self.representative[rows, None], self.cumulative[rows], np.float32(np.nan))
        return Labels(
            ids=[self.keys[row] for row in rows],
            cumulative=own,
            volunteers=np.where(self.representative[rows], np.float32(CHALLENGE_VOTES), np.float32(0)),
            classes=self.classes[rows],
            strict=self.strict[rows],
            largest=self.largest[rows],
            definition=DEBIASED,
            numbering=SURVEY,
        )

    def trained_ids(self) -> list[str]:
        """Return the digests of the training galaxies and their twins, as a bundle stores them."""
        own = {self.keys[row] for row in self.rows(TRAIN)}
        others = {twin for key in own for twin in (self.twins.get(key),) if twin is not None}
        return sorted(digest_of(key.encode()) for key in own | others)

    def digest(self) -> str:
        """Return the SHA-256 of keys and labels."""
        state = hashlib.sha256("\n".join(self.keys).encode())
        for field in fields(self):
            values = getattr(self, field.name)
            if field.name not in {"keys", "windows", "fine", "twins"}:
                state.update(np.ascontiguousarray(values).tobytes())
        return state.hexdigest()


def load(folder: Path, cache: Path, say: Callable[[str], None] = print) -> Galaxies:
    """Read all labels below a folder, and their images.

    Galaxies with a label but without an image, or with an image but without a label, are omitted. A line has
    their number.

    Args:
        folder: Folder with the tables of `TABLES`, or with subfolders that have them, and with images beside
            them.
        cache: Folder for the decoded windows.
        say: Called with each line.

    Raises:
        UsageError: The labels are faulty (see `gax_batch.analysis.labels`), images cannot be decoded, or the
            galaxies are too few.
    """
    tables = _read_tables(folder, say)
    images = _find_images(folder, tables)
    joined = {kind: join(parts) for kind, parts in _by_kind(tables).items()}
    keys = sorted({f"{labels.numbering}:{name}" for labels in joined.values() for name in labels.ids})
    used = [key for key in keys if key in images]
    say(f"{len(used):,} galaxies with labels and an image")
    for what, missing in (
        ("labels without an image", [key for key in keys if key not in images]),
        ("images without a label", sorted(images.keys() - set(keys))),
    ):
        if missing:
            say(f"  omitted: {len(missing):,} {what} ({', '.join(missing[:3])}, ...)")
    places = [images[key] for key in used]
    galaxies = _merge(used, joined.values(), _read_twins(folder))
    for name, sample in (("train", TRAIN), ("calibrate", CALIBRATE), ("report", REPORT)):
        count = int((galaxies.complete & (galaxies.sample == sample)).sum())
        if count < _SMALLEST_SAMPLE:
            raise UsageError(
                f"{folder} has {count} galaxies with all 37 debiased fractions in the sample '{name}', which "
                f"are too few; add tables of the Galaxy Zoo challenge with their images"
            )
        say(f"  {name}: {int((galaxies.sample == sample).sum()):,}, of which {count:,} with 37 fractions")
    cache.mkdir(parents=True, exist_ok=True)
    state = digest(places)
    return replace(
        galaxies,
        windows=write_windows(cache / f"windows-{state}.npy", places, WINDOW_SIDE),
        fine=write_windows(cache / f"fine-{state}.npy", places, FINE_SIDE),
    )


def _read_tables(folder: Path, say: Callable[[str], None]) -> list[tuple[Path, Labels]]:
    tables = []
    for place in (folder, *sorted(p for p in folder.glob("*") if p.is_dir())):
        for path in (place / name for name in TABLES):
            if path.is_file():
                labels = read_labels(str(path))
                tables.append((place, labels))
                say(f"{place.name}/{path.name}: {len(labels):,} galaxies, {labels.definition} definition")
    if not tables:
        raise UsageError(f"no labels in {folder} or its subfolders; expected one of {', '.join(TABLES)}")
    return tables


def _by_kind(tables: Iterable[tuple[Path, Labels]]) -> dict[tuple[str, str], list[Labels]]:
    kinds: dict[tuple[str, str], list[Labels]] = {}
    for _, labels in tables:
        kinds.setdefault((labels.numbering, labels.definition), []).append(labels)
    return kinds


def _find_images(folder: Path, tables: Sequence[tuple[Path, Labels]]) -> dict[str, Place]:
    """Return the place of each galaxy's image, which is beside a table of its numbering."""
    found: dict[str, Place] = {}
    for place, numbering in sorted({(place, labels.numbering) for place, labels in tables}):
        images = next((place / name for name in IMAGES if (place / name).exists()), None)
        for name, where in list_images(images).items() if images is not None else ():
            found.setdefault(f"{numbering}:{name}", where)
    if not found:
        raise UsageError(f"no images beside the tables of {folder}; expected one of {', '.join(IMAGES)}")
    return found


def _read_twins(folder: Path) -> dict[str, str]:
    """Return the other key of each galaxy that has two."""
    twins: dict[str, str] = {}
    for path in sorted(folder.rglob(TWINS)):
        with path.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                first, second = f"asset_id:{row['asset_id']}", f"{SURVEY}:{row['GalaxyID']}"
                twins |= {first: second, second: first}
    return twins


def _merge(keys: list[str], tables: Iterable[Labels], twins: dict[str, str]) -> Galaxies:
    place = {key: row for row, key in enumerate(keys)}
    count = len(keys)
    unknown: dict[str, Any] = {
        "cumulative": np.full((count, N_ANSWERS), np.nan, np.float32),
        "weighted": np.full((count, N_ANSWERS), np.nan, np.float32),
        "trust": np.ones(count, np.float32),
        "volunteers": np.zeros(count, np.float32),
        "classes": np.full(count, -1, np.int8),
        "strict": np.ones(count, bool),
        "largest": np.full(count, -1, np.int8),
    }
    for labels in tables:
        there = [row for row, name in enumerate(labels.ids) if f"{labels.numbering}:{name}" in place]
        rows = np.array([place[f"{labels.numbering}:{labels.ids[row]}"] for row in there], np.intp)
        part = labels.take(np.array(there, np.intp))
        if part.definition == WEIGHTED:
            unknown["weighted"][rows], unknown["volunteers"][rows] = part.cumulative, part.volunteers
            continue
        unknown["cumulative"][rows] = part.cumulative
        unknown["trust"][rows] = 1.0 if part.numbering == SURVEY else HART_TRUST
        for name in ("classes", "strict", "largest"):
            unknown[name][rows] = getattr(part, name)
    own = np.isfinite(unknown["cumulative"]).any(axis=1) & (unknown["trust"] == 1)
    roots = [key if key.startswith(SURVEY) else twins.get(key, key) for key in keys]
    chosen = {root for root, mine in zip(roots, own, strict=True) if mine}
    sample = np.array([sample_of(root, root in chosen) for root in roots], np.int8)
    nothing = np.empty((0, 0, 0, 3), np.uint8)
    return Galaxies(keys=keys, sample=sample, windows=nothing, fine=nothing, twins=twins, **unknown)


def sample_of(key: str, representative: bool) -> int:
    """Return the sample of a galaxy: `TRAIN`, `CALIBRATE` or `REPORT`.

    Args:
        key: Key of the galaxy, or of its twin in the challenge.
        representative: Whether the challenge's own fractions of it are known.
    """
    percent = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 100
    return int(np.searchsorted(SHARES[representative], percent, side="right"))
