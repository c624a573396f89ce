"""The five clear classes of the Galaxy Zoo challenge's fractions, and the thresholds that define them."""

import numpy as np
import numpy.typing as npt

from gax_batch import gz2

CLEAR_CLASSES = ("round", "in_between", "cigar", "edge_on", "spiral")
NO_CLASS = len(CLEAR_CLASSES)
"""Class of a galaxy that is certainly none of the five."""
CLASS_CONDITIONS: tuple[tuple[tuple[int, float], ...], ...] = (
    ((0, 0.469), (15, 0.5)),
    ((0, 0.469), (16, 0.5)),
    ((0, 0.469), (17, 0.5)),
    ((1, 0.43), (3, 0.602)),
    ((1, 0.43), (4, 0.715), (7, 0.619)),
)
"""For each class, pairs of a column and its minimum cumulative fraction."""
STRICT_SPIRAL = 0.69
"""Minimum of Class4.1 for a spiral in some tables, instead of 0.619."""
LARGEST_COLUMNS = tuple(
    column for q in gz2.QUESTIONS if q.parent is None for column in range(q.start, q.stop)
)
"""Class1.1 to Class1.3, Class6.1 and Class6.2: by the tree's sums one of them is the largest of the 37."""


def clear_class(cumulative: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Return the most likely of the five clear classes for each galaxy.

    Errors of all fractions have similar sizes. The likeliest class is therefore the one whose weakest
    condition is exceeded by most, or missed by least.

    Args:
        cumulative: Cumulative fractions, float32 `[N, 37]`.

    Returns:
        Index into `CLEAR_CLASSES`, `[N]`.
    """
    margins = [
        np.min([cumulative[:, column] - limit for column, limit in conditions], axis=0)
        for conditions in CLASS_CONDITIONS
    ]
    return np.asarray(np.argmax(margins, axis=0))
