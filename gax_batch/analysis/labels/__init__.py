"""Labels of galaxies: all or some vote fractions, or the thresholds that the fractions pass.

`rows` defines the labels, `classes` the clear classes and their thresholds. `tables` reads published tables,
and `joining` merges tables about the same galaxies.
"""

from gax_batch.analysis.labels.classes import (
    CLASS_CONDITIONS,
    CLEAR_CLASSES,
    LARGEST_COLUMNS,
    NO_CLASS,
    STRICT_SPIRAL,
    clear_class,
)
from gax_batch.analysis.labels.faults import EXAMPLES
from gax_batch.analysis.labels.joining import join
from gax_batch.analysis.labels.rows import (
    CHALLENGE_VOTES,
    DEBIASED,
    DEFINITIONS,
    NUMBERINGS,
    WEIGHTED,
    Float,
    Labels,
)
from gax_batch.analysis.labels.tables import read_labels

__all__ = [
    "CHALLENGE_VOTES",
    "CLASS_CONDITIONS",
    "CLEAR_CLASSES",
    "DEBIASED",
    "DEFINITIONS",
    "EXAMPLES",
    "LARGEST_COLUMNS",
    "NO_CLASS",
    "NUMBERINGS",
    "STRICT_SPIRAL",
    "WEIGHTED",
    "Float",
    "Labels",
    "clear_class",
    "join",
    "read_labels",
]
