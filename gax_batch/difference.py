"""Which members of a listing changed since a snapshot, and which units are redone for it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.errors import UsageError
from gax_batch.rejects import MAX_DETAIL_CHARACTERS, Reason, Stage

NEW, CHANGED, MODEL_CHANGED, FORCED = "new", "changed", "model changed", "forced"

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_NO_TEXT = pa.scalar(None, pa.string())


@dataclass(frozen=True, slots=True)
class Counts:
    """Members of the listing by what became of them, and members that the listing has no more."""

    new: int
    changed: int
    model_changed: int
    forced: int
    unchanged: int
    vanished: int

    def as_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)

    def __str__(self) -> str:
        shown = {k.replace("_", " "): v for k, v in self.as_dict().items() if v or k in ("new", "unchanged")}
        return ", ".join(f"{count:,} {name}" for name, count in shown.items())


class Difference:
    """Which members changed, and which known units are redone.

    Raises:
        UsageError: A vanished unit's galaxies are now listed under other URIs.
    """

    def __init__(
        self,
        listing: pa.Table,
        known: pa.Table,
        units: Mapping[str, tuple[str, str]],
        settings_fingerprint: str,
        full: bool,
    ) -> None:
        found = pc.index_in(listing["source_uri"], value_set=known["source_uri"])
        position = ints(pc.fill_null(found, -1))
        self.is_known: Bools = position >= 0
        self._position = position[self.is_known]
        self._rows = np.flatnonzero(self.is_known)
        self._vanished = np.ones(len(known), bool)
        self._vanished[self._position] = False
        encoded = pc.dictionary_encode(known["unit_id"]).combine_chunks()
        self.names: list[str] = encoded.dictionary.to_pylist()
        self._known_unit = ints(encoded.indices)
        self._unit = self._known_unit[self._position]
        self._listed = np.zeros(len(self.names), bool)
        self._listed[self._unit] = True
        self._stale = np.array([units[name][0] != settings_fingerprint for name in self.names], bool)
        self._full = full
        self._resolve(listing, known)

    def _resolve(self, listing: pa.Table, known: pa.Table) -> None:
        """Settle who has which id, and with it what changed and is redone.

        A vanished member gives its id to a listed one that claims it, by leaving: its unit is redone. It
        cannot leave a unit that has vanished as a whole, for nothing is left to redo.
        """
        before, now = known.take(pa.array(self._position)), listing.take(pa.array(self._rows))
        cataloged = ~bools(known["rejected"])
        differs = _differs(before["source_version"], now["source_version"])
        differs |= _differs(before["galaxy_id"], now["galaxy_id"])
        # Rejects have no position in the catalog; theirs changes nothing.
        moved = _differs(before["ra"], now["ra"]) | _differs(before["dec"], now["dec"])
        differs |= moved & cataloged[self._position]
        claims = _Claims(listing, known, self._rows, self._position)
        kept = self._vanished & cataloged & ~self._listed[self._known_unit]
        claims.refuse_moved(kept)
        leaves = self._vanished & cataloged & ~kept & claims.claimed()
        self.listing = claims.settle(np.flatnonzero(kept))
        reason = self.listing["reason"].take(pa.array(self._rows))
        self._changed = differs | _differs(before["plan_reason"], reason)
        self._unit_changed = np.zeros(len(self.names), bool)
        self._unit_changed[self._unit[self._changed]] = True
        self._unit_changed[self._known_unit[leaves]] = True
        self._redone = self._unit_changed | (self._listed & (self._stale | self._full))

    def redone_rows(self) -> tuple[Ints, Ints, list[int]]:
        """Listing rows of the units to redo, where each unit starts in them, and the units' codes."""
        rank = np.argsort(np.argsort(np.array(self.names, dtype=object))) if self.names else np.empty(0, int)
        mine = self._redone[self._unit]
        order = np.argsort(rank[self._unit[mine]], kind="stable")
        codes = self._unit[mine][order]
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        return self._rows[mine][order], starts, codes[starts].tolist()

    def reason(self, code: int) -> str:
        """Why a known unit is redone."""
        if self._stale[code]:
            return MODEL_CHANGED
        return CHANGED if self._unit_changed[code] else FORCED

    def counts(self) -> Counts:
        """Every member of the listing once, and the vanished ones."""
        stale = self._stale[self._unit] & ~self._changed
        forced = (~stale & ~self._changed) if self._full else np.zeros(len(stale), bool)
        masks = (~self.is_known, self._changed, stale, forced)
        new, changed, model_changed, forced_count = (int(np.count_nonzero(mask)) for mask in masks)
        return Counts(
            new=new,
            changed=changed,
            model_changed=model_changed,
            forced=forced_count,
            unchanged=len(self.is_known) - new - changed - model_changed - forced_count,
            vanished=int(np.count_nonzero(self._vanished)),
        )


class _Claims:
    """Who has which galaxy id: members of vanished units, then who had it, then who is listed first."""

    def __init__(self, listing: pa.Table, known: pa.Table, rows: Ints, position: Ints) -> None:
        self._listing = listing
        self._known = known
        reason = listing["reason"]
        # The listing's own idea of duplicates knows nothing of the catalog.
        self._was_duplicate = bools(pc.fill_null(pc.equal(reason, Reason.DUPLICATE_ID.value), False))
        self._may_claim = bools(pc.is_null(reason)) | self._was_duplicate
        both = pa.chunked_array([*listing["galaxy_id"].chunks, *known["galaxy_id"].chunks], pa.string())
        codes = pc.dictionary_encode(both).combine_chunks() if len(both) else None
        indices = np.empty(0, np.int64) if codes is None else ints(pc.fill_null(codes.indices, -1))
        self._id, self._known_id = indices[: len(listing)], indices[len(listing) :]
        self._may_claim &= self._id >= 0
        priority = np.full(len(listing), 2, np.int8)
        had = (self._id[rows] == self._known_id[position]) & bools(pc.is_null(known["plan_reason"]))[position]
        priority[rows[had]] = np.where(bools(known["rejected"])[position[had]], 1, 0)
        self._priority = priority
        self._is_fresh = np.ones(len(listing), bool)
        self._is_fresh[rows] = self._id[rows] != self._known_id[position]

    def claimed(self) -> Bools:
        """Which known rows have an id that a listed member claims."""
        return np.isin(self._known_id, self._id[self._may_claim])

    def refuse_moved(self, kept: Bools) -> None:
        """Refuse new claims to the ids of known rows that stay: as duplicates they would quietly be lost."""
        fresh = np.flatnonzero(self._may_claim & self._is_fresh)
        moved = np.flatnonzero(kept & np.isin(self._known_id, self._id[fresh]))
        if not len(moved):
            return
        claimant = fresh[self._id[fresh] == self._known_id[moved[0]]][0]
        now, was = self._listing["source_uri"][claimant], self._known["source_uri"][moved[0]]
        raise UsageError(
            f"{len(moved):,} galaxies of the catalog are now listed under other URIs (for example {now}, "
            f"was {was}): was the input moved? list both, or use a new catalog"
        )

    def settle(self, kept: Ints) -> pa.Table:
        """The listing with `duplicate_id` exactly where it is due; `kept` are known rows that stay."""
        claimants = np.flatnonzero(self._may_claim)
        # Claimants and the kept together, the kept first; only ids with several of them matter.
        ids = np.concatenate([self._known_id[kept], self._id[claimants]])
        who = np.concatenate([kept + len(self._listing), claimants])
        priority = np.concatenate([np.full(len(kept), -1, np.int8), self._priority[claimants]])
        contested = np.flatnonzero(np.bincount(ids[ids >= 0], minlength=1)[ids] > 1)
        ids, who, priority = ids[contested], who[contested], priority[contested]
        order = np.lexsort((who, priority, ids))
        ids, who = ids[order], who[order]
        first = np.diff(ids, prepend=-1) != 0
        winner = who[np.flatnonzero(first)][np.cumsum(first) - 1] if len(ids) else who
        lost = ~first & (who < len(self._listing))
        return self._marked(who[lost], winner[lost])

    def _marked(self, losers: Ints, winners: Ints) -> pa.Table:
        order = np.argsort(losers)
        losers, winners = losers[order], winners[order]
        duplicate = np.zeros(len(self._listing), bool)
        duplicate[losers] = True
        touched = duplicate | self._was_duplicate
        if not touched.any():
            return self._listing
        is_duplicate = duplicate[touched]
        owner = np.full(len(is_duplicate), -1)
        owner[is_duplicate] = winners
        chunks = [*self._listing["source_uri"].chunks, *self._known["source_uri"].chunks]
        owners = pa.chunked_array(chunks, pa.string()).take(pa.array(owner, mask=owner < 0))
        detail = pc.binary_join_element_wise("galaxy_id is already taken by", owners, " ")
        values = {
            "stage": pc.if_else(pa.array(is_duplicate), Stage.PLAN.value, _NO_TEXT),
            "reason": pc.if_else(pa.array(is_duplicate), Reason.DUPLICATE_ID.value, _NO_TEXT),
            "detail": pc.utf8_slice_codeunits(detail, 0, MAX_DETAIL_CHARACTERS),
        }
        listing = self._listing
        for name, new in values.items():
            index = listing.schema.get_field_index(name)
            column = pc.replace_with_mask(one_array(listing[name]), pa.array(touched), one_array(new))
            listing = listing.set_column(index, listing.schema.field(name), column)
        return listing


def _differs(before: pa.ChunkedArray, now: pa.ChunkedArray) -> Bools:
    """Where two columns differ; null equals null."""
    unequal = bools(pc.fill_null(pc.not_equal(before, now), False))
    one_is_null: Bools = bools(pc.is_null(before)) != bools(pc.is_null(now))
    return unequal | one_is_null


def one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array, whatever its chunks."""
    if isinstance(column, pa.Array):
        return column
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def bools(column: pa.ChunkedArray | pa.Array) -> Bools:
    """A column without nulls as NumPy booleans."""
    return np.asarray(one_array(column).to_numpy(zero_copy_only=False), dtype=bool)


def ints(column: pa.ChunkedArray | pa.Array) -> Ints:
    """A column without nulls as NumPy integers."""
    return np.asarray(one_array(column).to_numpy(zero_copy_only=False), dtype=np.int64)
