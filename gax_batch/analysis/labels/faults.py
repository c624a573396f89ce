"""Count the faults of a table by kind, give examples, and refuse the table."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gax_batch.errors import UsageError

Rows = npt.NDArray[np.bool_]
EXAMPLES = 3


def refuse_faults(subject: str, ids: Sequence[str], faults: Mapping[str, Rows], remedy: str) -> None:
    """Raise if any row has a fault.

    Args:
        subject: Subject of the message: the refused table.
        ids: Identifiers of the N rows.
        faults: By kind of fault, whether each row has it, bool `[N]`.
        remedy: What the user can do, for the message.

    Raises:
        UsageError: At least one row has a fault. The message counts each kind and gives examples.
    """
    lines = []
    for kind, rows in faults.items():
        if rows.any():
            first = ", ".join(ids[int(i)] or "(empty)" for i in np.flatnonzero(rows)[:EXAMPLES])
            more = ", ..." if rows.sum() > EXAMPLES else ""
            lines.append(f"  {int(rows.sum()):,} with {kind}: {first}{more}")
    if lines:
        raise UsageError("\n".join([f"{subject} among {len(ids):,} galaxies", *lines, remedy]))


def duplicated(ids: Sequence[str]) -> Rows:
    """Return whether each row lacks an identifier or has that of an earlier row, bool `[N]`."""
    seen: set[str] = set()
    repeated = np.zeros(len(ids), bool)
    for row, name in enumerate(ids):
        repeated[row] = name in seen or not name
        seen.add(name)
    return repeated
