"""The data of the explorer's pages: galaxies that match filters, a map of them, one galaxy, and a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gax_batch import gz2, storage
from gax_batch.analysis.cutouts import NEEDED, Cutouts, read_cutouts
from gax_batch.catalog import layout
from gax_batch.catalog.schema import COLUMNS
from gax_batch.catalog.snapshots import Catalog
from gax_batch.errors import UsageError
from gax_batch.export.formats import Format
from gax_batch.export.selection import Selection, choose_columns
from gax_batch.export.tables import publish_table
from gax_batch.export.votable import TableProvenance
from gax_batch.viewer import sky_map
from gax_batch.viewer.explorer.columns import Columns
from gax_batch.viewer.explorer.filters import FLAGS, Filters, any_of
from gax_batch.viewer.explorer.finder import Finder
from gax_batch.viewer.explorer.pictures import Pictures
from gax_batch.viewer.report.galleries import LikelyAnswer, answer_label, likely_answers
from gax_batch.viewer.tree import TreeDrawing, lay_out

PAGE = 24
MOST_BY_NAME = 200
"""Maximum number of galaxies in an expression of their names."""

SUFFIXES = {
    Format.CSV: "csv",
    Format.ECSV: "ecsv",
    Format.VOTABLE: "vot",
    Format.FITS: "fits",
    Format.PARQUET: "parquet",
}

_ON_PAGES = (
    *NEEDED,
    "gz2_class",
    "ood_score",
    *(f"{answer}_{quantity}" for answer in gz2.ANSWERS for quantity in ("prob", "lo", "hi")),
)


@dataclass(frozen=True, slots=True)
class ResultCard:
    """One galaxy of a page of results. The answer that the filters name comes first."""

    galaxy_id: str
    gz2_class: str
    answers: list[LikelyAnswer]


@dataclass(frozen=True, slots=True)
class ResultPage:
    """A page of the galaxies that match the filters; the first page is 1."""

    total: int
    page: int
    pages: int
    cards: list[ResultCard]
    picture: str
    view: sky_map.View
    graticule: str
    circle: str | None


@dataclass(frozen=True, slots=True)
class Detail:
    """One galaxy with all columns of the catalog."""

    row: dict[str, Any]
    flags: list[str]
    drawing: TreeDrawing


class Survey:
    """A snapshot that stays open while its pages are served."""

    def __init__(self, catalog: Catalog, folder: Path, sources: str | None = None) -> None:
        """Read the columns that every request needs: identifiers and positions.

        Args:
            catalog: The snapshot.
            folder: An empty folder on a local disk, for its columns.
            sources: Current place of the survey's files; see `gax_batch.open_catalog`.

        Raises:
            UsageError: A part of the snapshot is missing or unreadable.
            TransientError: The store kept failing.
        """
        self.catalog, self.version = catalog, int(catalog.version or 0)
        self._folder, self._sources = folder, sources
        self._columns = Columns(catalog, folder)
        self._finder = Finder(self._columns)
        self.pictures = Pictures(self._needed, self._read_cutouts)
        ra, dec = self._columns.floats("ra"), self._columns.floats("dec")
        self.placed = int(np.count_nonzero(np.isfinite(ra) & np.isfinite(dec)))
        self._cells = sky_map.cells_of(ra, dec)
        self._view = sky_map.whole_view(ra, dec)

    def __len__(self) -> int:
        return len(self._columns)

    def find(self, filters: Filters, page: int) -> ResultPage:
        """Return a page of the galaxies that match; the last page if there are fewer pages.

        Raises:
            UsageError: The expression is not allowed or cannot be evaluated, or a part is missing.
            TransientError: The store kept failing.
        """
        places = self._finder.find(filters)
        pages = max(-(-len(places) // PAGE), 1)
        page = min(page, pages)
        # Read the columns that locate cutouts in the same pass, since opening the parts takes most of the
        # time.
        rows = self._columns.rows(places[(page - 1) * PAGE : page * PAGE], _ON_PAGES)
        self.pictures.fetch(rows.select(NEEDED))
        cards = [
            ResultCard(row["galaxy_id"], row["gz2_class"] or "none", _answers(row, filters))
            for row in rows.to_pylist()
        ]
        view, circle = self._view, None
        if filters.ra is not None and filters.dec is not None and filters.radius is not None:
            view = sky_map.View(filters.ra, filters.dec, max(1.6 * filters.radius, 0.05))
            view = view if (view.radius or 0) <= 60 else sky_map.View()
            circle = sky_map.circle(view, filters.ra, filters.dec, filters.radius)
        drawn = sky_map.picture(view, self._cells[places])
        return ResultPage(len(places), page, pages, cards, drawn, view, sky_map.graticule(view), circle)

    def detail(self, galaxy_id: str) -> Detail:
        """Return one galaxy.

        Raises:
            UsageError: The galaxy is not in the snapshot.
        """
        place = np.array([self._columns.place(galaxy_id)])
        found = self._columns.rows(place, [column.name for column in COLUMNS])
        self.pictures.fetch(found.select(NEEDED))
        (row,) = found.to_pylist()
        names = [name.replace("_", " ") for name, bit in FLAGS.items() if row["flags"] & bit]
        return Detail(row, names, lay_out(row))

    def first(self, filters: Filters, count: int) -> list[str]:
        """Return the ids of the first galaxies that match, in the order that the filters name."""
        places = self._finder.find(filters)[:count]
        names: list[str] = self._columns.ids.take(places).to_pylist()
        return names

    def publish(
        self, filters: Filters, ids: Sequence[str] | None, form: Format, columns: str, path: Path
    ) -> None:
        """Write galaxies as one file, as `gax publish` does.

        Args:
            filters: Conditions that the galaxies fulfill.
            ids: Ids of the galaxies to write instead of those that match; None to use the filters.
            form: Format of the file.
            columns: Names or globs, separated by commas; all columns if empty.
            path: Path of the file.

        Raises:
            UsageError: No or too many galaxies, an unknown column, or text that the format does not
                allow.
            FatalError: A part is missing or unreadable.
            TransientError: The store kept failing.
        """
        if ids is not None and not 0 < len(ids) <= MOST_BY_NAME:
            raise UsageError(
                f"{len(ids):,} galaxies cannot be taken one by one, but 1 to {MOST_BY_NAME}; for more, limit "
                "a probability or an uncertainty and take all that match"
            )
        where = filters.expression() if ids is None else any_of(ids)
        root = layout.table(self.catalog.uri, layout.GALAXIES_TABLE)
        publish_table(
            root,
            [part.key for part in self.catalog.parts()],
            Selection(choose_columns([columns]), where),
            TableProvenance(self.catalog.uri, self.version, where=where),
            form,
            storage.normalize_uri(str(path)),
        )

    def _needed(self, galaxy_id: str) -> pa.Table:
        return self._columns.rows(np.array([self._columns.place(galaxy_id)]), NEEDED)

    def _read_cutouts(self, galaxies: pa.Table) -> Cutouts:
        return read_cutouts(self.catalog.uri, galaxies, self._sources)


def _answers(row: dict[str, Any], filters: Filters) -> list[LikelyAnswer]:
    name = filters.answer
    if row[f"{name}_prob"] is None:
        return []
    label = answer_label(filters.question, gz2.ANSWERS.index(name))
    first = LikelyAnswer(label, row[f"{name}_prob"], row[f"{name}_lo"], row[f"{name}_hi"])
    return [first, *(answer for answer in likely_answers(row) if answer.label != label)][:4]
