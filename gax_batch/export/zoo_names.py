"""Rename the fractions of Galaxy Zoo 2 as in the tables of Galaxy Zoo and Zoobot.

The labels are those of `gz2_ortho_pairs` in galaxy-datasets (mwalmsley/galaxy-datasets,
galaxy_datasets/shared/label_metadata.py). The suffixes and the threshold of one half are those of
`prediction_hdf5_to_summary_parquet` in Zoobot (mwalmsley/zoobot, zoobot/shared/load_predictions.py), which
writes a friendly and an advanced table.

The labels do not include the question about odd features (Hart et al. 2016: t08). The fraction of volunteers
who are asked a question follows the tree of Galaxy Zoo 2 (Willett et al. 2013, table 2). In contrast,
`gz2_ortho_dependencies` of galaxy-datasets asks for bars, arms and bulge size directly after
`featured-or-disk`.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gax_batch import gz2
from gax_batch.catalog.schema import CONDITIONAL_COLUMNS, Column
from gax_batch.export.formats import Names

ASKED_AT_LEAST = 0.5
"""Minimum fraction of all volunteers who must be asked. Below it, fractions of `Names.GZ` are null."""


_QUESTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "t01_smooth_or_features": ("smooth-or-featured-gz2", ("smooth", "featured-or-disk", "artifact")),
    "t02_edgeon": ("disk-edge-on-gz2", ("yes", "no")),
    "t03_bar": ("bar-gz2", ("yes", "no")),
    "t04_spiral": ("has-spiral-arms-gz2", ("yes", "no")),
    "t05_bulge_prominence": ("bulge-size-gz2", ("no", "just-noticeable", "obvious", "dominant")),
    "t06_odd": ("something-odd-gz2", ("yes", "no")),
    "t07_rounded": ("how-rounded-gz2", ("round", "in-between", "cigar")),
    "t09_bulge_shape": ("bulge-shape-gz2", ("round", "boxy", "no-bulge")),
    "t10_arms_winding": ("spiral-winding-gz2", ("tight", "medium", "loose")),
    "t11_arms_number": ("spiral-arm-count-gz2", ("1", "2", "3", "4", "more-than-4", "cant-tell")),
}
"""Label of each question and of its answers, in the order of `gax_batch.gz2`."""

LABELS: dict[str, str] = {
    f"{question.name}_{answer}": f"{_QUESTIONS[question.name][0]}_{label}"
    for question in gz2.QUESTIONS
    if question.name in _QUESTIONS
    for answer, label in zip(question.answers, _QUESTIONS[question.name][1], strict=True)
}
"""Label by answer. Answers without a label are missing."""

_SUFFIXES = {"fraction": "conditional", "90pc-lower": "conditional_lo", "90pc-upper": "conditional_hi"}
_ASKED = "proportion-asked"
_OF_NAMES = {Names.GZ: ("fraction",), Names.ZOOBOT: (*_SUFFIXES, _ASKED)}
_CONDITIONAL = {column.name: column for column in CONDITIONAL_COLUMNS}


def _column(answer: str, suffix: str) -> Column:
    name = f"{LABELS[answer]}_{suffix}"
    if suffix == _ASKED:
        meaning = f"{answer}: expected share of all volunteers who are asked the question"
        return Column(name, pa.float32(), "", "stat.probability;src.morph.type", meaning)
    same = _CONDITIONAL[f"{answer}_{_SUFFIXES[suffix]}"]
    only = (
        "; among the gz names only where at least half of all volunteers are asked"
        if suffix == "fraction"
        else ""
    )
    return Column(name, same.type, same.unit, same.ucd, f"{same.description}{only}")


COLUMNS: tuple[Column, ...] = tuple(
    _column(answer, suffix) for suffix in _OF_NAMES[Names.ZOOBOT] for answer in LABELS
)
"""All named columns, grouped by suffix."""


def columns_named(names: Names) -> tuple[str, ...]:
    """Return the names of the columns of a naming scheme."""
    return tuple(f"{label}_{suffix}" for suffix in _OF_NAMES[names] for label in LABELS.values())


def add_named(rows: pa.Table, names: Names) -> pa.Table:
    """Append the columns of a naming scheme to rows.

    Args:
        rows: Table of N rows with `<answer>_prob` and the conditional fractions of every answer.
        names: Naming scheme.

    Returns:
        The rows with the columns of `columns_named`, float32 `[N]`. Values are null where a fraction is null
        and, for `Names.GZ`, where the fraction of volunteers who are asked is below `ASKED_AT_LEAST`.
    """
    by_name = {column.name: column for column in COLUMNS}
    for suffix in _OF_NAMES[names]:
        for question in gz2.QUESTIONS:
            if question.name not in _QUESTIONS:
                continue
            answers = gz2.ANSWERS[question.columns]
            asked = _asked(rows, answers)
            for answer in answers:
                column = by_name[f"{LABELS[answer]}_{suffix}"]
                values = asked
                if suffix != _ASKED:
                    values = rows[f"{answer}_{_SUFFIXES[suffix]}"].to_numpy()
                if names is Names.GZ:
                    values = np.where(asked >= ASKED_AT_LEAST, values, np.float32(np.nan))
                rows = rows.append_column(column.field, pa.array(values, pa.float32(), from_pandas=True))
    return rows


def _asked(rows: pa.Table, answers: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """Return the fraction of all volunteers who are asked a question, float32 `[N]`.

    It is the sum of the cumulative fractions of the answers.
    """
    prob = np.stack([rows[f"{answer}_prob"].to_numpy() for answer in answers], axis=1)
    # A sum over floats may exceed 1 by rounding.
    asked: npt.NDArray[np.float64] = np.minimum(prob.sum(axis=1, dtype=np.float64), 1)
    return asked.astype(np.float32)
