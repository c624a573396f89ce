"""Stop a run with too many rejects, without any galaxy, or of which every unit failed."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.catalog import layout
from gax_batch.catalog.parts import Part, read_in_turn
from gax_batch.catalog.schema import REJECTS
from gax_batch.cluster.progress import RunCounts
from gax_batch.errors import FatalError, GaxError, UsageError

CHECKED_AFTER = 1_000
"""Number of cutouts after which the rejects are checked during the run."""

# A few bad cutouts in a small night do not indicate a wrong configuration.
FEW_REJECTS = 10
_SHOWN_REASONS = 3


class Tolerance:
    """Counts galaxies and rejects, and stops a run if they indicate a wrong input or setting."""

    def __init__(self, catalog: str, threshold: float, *, galaxies_before: int) -> None:
        """Start with zero counts.

        Args:
            catalog: URI of the catalog.
            threshold: Fraction of the cutouts that may be rejected, 0 to 1.
            galaxies_before: Number of galaxies in the catalog before the run.
        """
        self._catalog, self._threshold, self._before = catalog, threshold, galaxies_before
        self._rows = self._rejects = 0
        self._reasons: Counter[str] = Counter()
        self._examples: dict[str, Part] = {}

    def try_sample(self, cutouts: pa.Table) -> None:
        """Check a few cutouts of the whole plan before the run starts. They are not counted.

        A sample is too small to compare it with the threshold: only one without a good cutout stops the run.

        Args:
            cutouts: Table with `CUTOUT_SCHEMA`.

        Raises:
            UsageError: All cutouts are rejected, and the threshold is below 1.
        """
        if self._threshold == 1 or not len(cutouts) or pc.any(pc.is_null(cutouts["reason"])).as_py():
            return
        counts = _counts(Counter(cutouts["reason"].to_pylist()).most_common(_SHOWN_REASONS))
        first = cutouts.slice(0, 1).select(["source_uri", "detail"]).to_pylist()[0]
        raise UsageError(
            f"all {len(cutouts):,} cutouts of a sample of the run were rejected ({counts}; for example "
            f"{first['source_uri']}: {first['detail']}); check the input and the settings, or allow it with "
            "--max-rejects 1"
        )

    def add(self, part: Part) -> None:
        """Count a finished part.

        Raises:
            UsageError: After `CHECKED_AFTER` cutouts, too many are rejected.
        """
        self._rows += part.rows
        self._rejects += part.rejects
        self._reasons.update(part.rejects_by_reason)
        for reason in part.rejects_by_reason:
            self._examples.setdefault(reason, part)
        if self._rows + self._rejects >= CHECKED_AFTER:
            self._check()

    def end(self, counts: RunCounts) -> None:
        """Check the counts of the whole run before its commit.

        Raises:
            UsageError: Too many cutouts are rejected, or the catalog would have no galaxy.
            FatalError: Every unit failed.
        """
        if counts.failures and not counts.parts:
            unit, cause = next(iter(counts.failures.items()))
            raise FatalError(f"every unit failed ({len(counts.failures):,}), for example {unit}: {cause}")
        self._check()
        if self._rejects and not (self._rows or self._before) and self._threshold < 1:
            raise UsageError(
                f"all {self._rejects:,} cutouts were rejected ({self._described()}), and the catalog would "
                "have no galaxy; check the input and the settings, or allow it with --max-rejects 1"
            )

    def _check(self) -> None:
        cutouts = self._rows + self._rejects
        if self._rejects <= max(self._threshold * cutouts, FEW_REJECTS):
            return
        raise UsageError(
            f"{self._rejects:,} of {cutouts:,} cutouts were rejected ({self._described()}), more than "
            f"--max-rejects {self._threshold:.3g}; check the input and the settings, or allow more: the same "
            "command then reuses the finished units"
        )

    def _described(self) -> str:
        reasons = self._reasons.most_common(_SHOWN_REASONS)
        counts = _counts(reasons)
        examples = "; ".join(self._describe([reason for reason, _ in reasons]))
        return f"{counts}; for example {examples}" if examples else counts

    def _describe(self, reasons: Sequence[str]) -> Iterator[str]:
        """Yield an example for each reason. Examples that cannot be read are skipped."""
        for reason in reasons:
            # An example that cannot be read must not hide why the run stops.
            with suppress(GaxError, OSError):
                root = layout.table(self._catalog, layout.REJECTS)
                (rows,) = read_in_turn(root, [self._examples[reason].key], REJECTS)
                row = next(row for row in rows.to_pylist() if row["reason"] == reason)
                yield f"{row['source_uri']}: {row['detail']}"


def _counts(reasons: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons)
