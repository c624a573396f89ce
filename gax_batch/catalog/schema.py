"""The columns of the catalog as data (name, type, unit, UCD, description), and tables from plain arrays.

Arrow schemas, the column comments of the Delta table and the documentation all derive from `COLUMNS` and
`REJECT_COLUMNS`. Units are VOUnits, UCDs are UCD1+ words. Arrow types are plain, so that every reader of
Parquet supports them: no dictionaries, extension types, large strings or string views.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.errors import FatalError
from gax_batch.gz2 import ANSWERS, DEFINITION, QUESTION_NAMES
from gax_batch.imaging.cutout import ImageFlag
from gax_batch.rejects import MEANING, Stage

Values = npt.NDArray[Any] | Sequence[Any]


class Flag(IntFlag):
    """Bits of `flags` that the catalog sets. The lower bits are those of `imaging.ImageFlag`."""

    NO_POSITION = 16
    OUT_OF_DISTRIBUTION = 32


@dataclass(frozen=True, slots=True)
class Column:
    """One column: Arrow type, VOUnit (empty: dimensionless or text), UCD1+, and its meaning."""

    name: str
    type: pa.DataType
    unit: str
    ucd: str
    description: str
    nullable: bool = True

    @property
    def field(self) -> pa.Field:
        """The Arrow field. Delta calls the description of a column `comment`."""
        metadata = {"comment": self.description, "unit": self.unit, "ucd": self.ucd}
        return pa.field(self.name, self.type, self.nullable, {k: v for k, v in metadata.items() if v})


DESCRIPTION = f"galaxy morphology: {DEFINITION.name} vote fractions with uncertainties, a row per galaxy"
"""Description of the table of galaxies. Each `_prob` column describes what `debiased` means."""

_INTERVAL = (
    "the 90 % predictive interval of the fraction, with the scatter of votes; calibrated by question, by the "
    "predicted share of volunteers who are asked it, and by predicted fraction"
)

ANSWER_QUANTITIES: dict[str, tuple[str, str]] = {
    "prob": (
        "stat.probability;src.morph.type",
        f"expected {DEFINITION.description}; mean of the draws, each a blend of Bayesian CNN and CNN-SVR",
    ),
    "std": (
        "stat.stdev;src.morph.type",
        "model uncertainty of the fraction: standard deviation of the same draws, over the weights of the "
        "Bayesian CNN and the CNN-SVR's own error; without the scatter of votes",
    ),
    "lo": ("src.morph.type;stat.min", f"lower end of {_INTERVAL}"),
    "hi": ("src.morph.type;stat.max", f"upper end of {_INTERVAL}"),
    "svr": ("stat.probability;src.morph.type", "the same fraction by the CNN-SVR alone"),
}
_CONDITIONAL_INTERVAL = (
    "the 90 % predictive interval of the conditional fraction where at least one volunteer is asked, with "
    "the scatter of their votes; calibrated by question, by the predicted share of volunteers who are "
    "asked it, and by predicted fraction"
)
CONDITIONAL_QUANTITIES: dict[str, tuple[str, str]] = {
    "conditional": (
        "stat.probability;src.morph.type",
        "expected fraction of the volunteers who are asked the question who would give the answer if the "
        "galaxy were nearby, as in Galaxy Zoo's tables (conditional; debiased as by Willett et al. 2013); "
        "_prob divided by its sum over the answers of the question",
    ),
    "conditional_lo": ("src.morph.type;stat.min", f"lower end of {_CONDITIONAL_INTERVAL}"),
    "conditional_hi": ("src.morph.type;stat.max", f"upper end of {_CONDITIONAL_INTERVAL}"),
}
QUESTION_QUANTITIES: dict[str, tuple[str, str]] = {
    "entropy": (
        "stat.param;src.morph.type",
        "entropy in nats of the answer of a volunteer who is asked, by the mean of the draws",
    ),
    "mutual_info": (
        "stat.param;src.morph.type",
        "mutual information in nats of that answer and the draw: how much of the entropy is disagreement of "
        "the draws, which more training galaxies could lower",
    ),
}


def _flag_meaning() -> str:
    bits = sorted([*ImageFlag, *Flag])
    return ", ".join(f"{bit.value} {(bit.name or '').lower()}" for bit in bits)


def _provenance() -> Iterator[Column]:
    yield Column(
        "source_uri", pa.string(), "", "meta.ref.uri", "object, or object and row, of the cutout", False
    )
    yield Column(
        "source_version",
        pa.string(),
        "",
        "meta.version",
        "version of that object when it was listed: ETag, or size and modification time",
        False,
    )


def _galaxy_columns() -> Iterator[Column]:
    text, real = pa.string(), pa.float32()
    yield Column("galaxy_id", text, "", "meta.id;meta.main", "identifier in the survey, unique", False)
    yield Column("ra", pa.float64(), "deg", "pos.eq.ra;meta.main", "right ascension, ICRS")
    yield Column("dec", pa.float64(), "deg", "pos.eq.dec;meta.main", "declination, ICRS")
    for answer in ANSWERS:
        for quantity, (ucd, meaning) in ANSWER_QUANTITIES.items():
            yield Column(f"{answer}_{quantity}", real, "", ucd, f"{answer}: {meaning}")
    for question in QUESTION_NAMES:
        for quantity, (ucd, meaning) in QUESTION_QUANTITIES.items():
            yield Column(f"{question}_{quantity}", real, "", ucd, f"{question}: {meaning}")
    yield Column(
        "gz2_class",
        text,
        "",
        "src.morph.type",
        "class string of Willett et al. 2013, appendix A: the most likely path through the tree by "
        f"{DEFINITION.name} fractions",
    )
    yield Column(
        "gz2_class_margin",
        real,
        "",
        "stat.param;src.morph.type",
        "how far gz2_class is from another string: the fraction of the winning answer minus that of the "
        "second, of those asked, where it is smallest on the path; 0 is a tie, 1 unanimous",
    )
    yield Column(
        "ood_score",
        real,
        "",
        "stat.param",
        "1 minus the likeness to the nearest training galaxy of the CNN-SVR other than the galaxy itself; 0 "
        "is alike, 1 unlike all of them",
    )
    yield Column("flags", pa.int32(), "", "meta.code", f"sum of bits: {_flag_meaning()}", False)
    yield from _provenance()
    yield Column("unit_id", text, "", "meta.id.assoc", "unit of work that made the row", False)
    yield Column("bundle_id", text, "", "meta.id.assoc;meta.software", "model that made the row", False)
    yield Column("run_id", text, "", "meta.id.assoc", "run that made the row", False)


def _reject_columns() -> Iterator[Column]:
    text = pa.string()
    yield Column("galaxy_id", text, "", "meta.id;meta.main", "identifier in the survey")
    yield from _provenance()
    stages = ", ".join(Stage)
    yield Column("stage", text, "", "meta.code.status", f"step that rejected the cutout: {stages}", False)
    yield Column("reason", text, "", "meta.code.status", f"one of {', '.join(MEANING)}", False)
    yield Column("detail", text, "", "meta.note", "what was found, for a person to read")
    yield Column(
        "attempts", pa.int32(), "", "meta.number", "runs that tried this version of the cutout in vain", False
    )
    yield Column("unit_id", text, "", "meta.id.assoc", "unit of work that rejected the cutout", False)
    yield Column("run_id", text, "", "meta.id.assoc", "run that rejected the cutout", False)


COLUMNS: tuple[Column, ...] = tuple(_galaxy_columns())
CONDITIONAL_COLUMNS: tuple[Column, ...] = tuple(
    Column(f"{answer}_{quantity}", pa.float32(), "", ucd, f"{answer}: {meaning}")
    for answer in ANSWERS
    for quantity, (ucd, meaning) in CONDITIONAL_QUANTITIES.items()
)
"""Columns that are not stored: `gax_batch.analysis.conditional` derives them when they are read."""

REJECT_COLUMNS: tuple[Column, ...] = tuple(_reject_columns())
ADDED_COLUMNS = frozenset({"gz2_class_margin"})
"""Columns that parts and tables of earlier releases lack. There they are read as null."""

GALAXIES: pa.Schema = pa.schema([column.field for column in COLUMNS])
NUMERIC_COLUMNS: tuple[str, ...] = tuple(
    column.name for column in COLUMNS if pa.types.is_floating(column.type) or pa.types.is_integer(column.type)
)
REJECTS: pa.Schema = pa.schema([column.field for column in REJECT_COLUMNS])


def column_table(columns: Sequence[Column] = COLUMNS) -> list[tuple[str, str, str, str, str]]:
    """Return the columns as rows (name, type, unit, UCD, description) for documentation."""
    return [(c.name, str(c.type), c.unit, c.ucd, c.description) for c in columns]


def galaxies_table(
    cutouts: pa.Table, columns: Mapping[str, Values], *, unit_id: str, bundle_id: str, run_id: str
) -> pa.Table:
    """Return the rows of the catalog for classified cutouts.

    Args:
        cutouts: N rows of `CUTOUT_SCHEMA` (the column of pixels may be missing), none rejected.
        columns: For every column that the models compute, its name and N values. NaN becomes null. Also
            `out_of_distribution`, bool `[N]`, which becomes a bit of `flags`.
        unit_id: The unit of the cutouts.
        bundle_id: The model that classified them.
        run_id: The run.

    Returns:
        N rows of `GALAXIES`, in the same order.

    Raises:
        FatalError: A column is missing, unknown, of the wrong length, or has an infinite value.
    """
    count = len(cutouts)
    ours: dict[str, Any] = {name: cutouts[name] for name in ("galaxy_id", "source_uri", "source_version")} | {
        name: pa.repeat(value, count) for name, value in _labels(unit_id, run_id, bundle_id)
    }
    ours |= {name: _without_nan(cutouts[name]) for name in ("ra", "dec")}
    ours["flags"] = _flags(cutouts["flags"], ours["ra"], ours["dec"], columns.get("out_of_distribution"))
    wanted = set(GALAXIES.names) - ours.keys()
    given = columns.keys() - {"out_of_distribution"}
    if given != wanted:
        raise FatalError(f"columns missing or unknown: {', '.join(sorted(given ^ wanted)[:5])}")
    arrays = [
        ours[field.name] if field.name in ours else _model_column(field, columns[field.name], count)
        for field in GALAXIES
    ]
    return pa.Table.from_arrays(arrays, schema=GALAXIES)


def rejects_table(cutouts: pa.Table, *, unit_id: str, run_id: str) -> pa.Table:
    """Return rows of `REJECTS` for rejected rows of `CUTOUT_SCHEMA`, in the same order."""
    own: dict[str, Any] = {name: pa.repeat(value, len(cutouts)) for name, value in _labels(unit_id, run_id)}
    own["attempts"] = pc.add(pc.fill_null(cutouts["attempts"], 0), pa.scalar(1, pa.int32()))
    arrays = [own[name] if name in own else cutouts[name] for name in REJECTS.names]
    return pa.Table.from_arrays(arrays, schema=REJECTS)


def _labels(unit_id: str, run_id: str, bundle_id: str | None = None) -> Iterator[tuple[str, pa.Scalar]]:
    yield "unit_id", pa.scalar(unit_id, pa.string())
    yield "run_id", pa.scalar(run_id, pa.string())
    if bundle_id is not None:
        yield "bundle_id", pa.scalar(bundle_id, pa.string())


def _without_nan(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)


def _flags(
    image_flags: pa.ChunkedArray, ra: pa.ChunkedArray, dec: pa.ChunkedArray, far: Values | None
) -> pa.Array:
    flags = image_flags.to_numpy().astype(np.int32)
    nowhere = pc.or_(pc.is_null(ra), pc.is_null(dec)).to_numpy().astype(bool)
    flags[nowhere] |= Flag.NO_POSITION.value
    if far is not None:
        flags[np.asarray(far, dtype=bool)] |= Flag.OUT_OF_DISTRIBUTION.value
    return pa.array(flags, pa.int32())


def _model_column(field: pa.Field, values: Values, count: int) -> pa.Array:
    if len(values) != count:
        raise FatalError(f"column {field.name} has {len(values)} values for {count} cutouts")
    if pa.types.is_floating(field.type):
        values = np.ascontiguousarray(values, dtype=field.type.to_pandas_dtype())
        if np.isinf(values).any():
            raise FatalError(f"column {field.name} has an infinite value")
    # With `from_pandas`, NaN becomes null.
    return pa.array(values, field.type, from_pandas=True)
