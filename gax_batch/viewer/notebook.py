"""A snapshot of a catalog for notebooks: tables, cutouts, draws, and a drawing of one galaxy's tree."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch import gz2
from gax_batch.analysis.conditional import NEEDED as NEEDED_BY_CONDITIONAL
from gax_batch.analysis.conditional import Conditional
from gax_batch.analysis.cutouts import NEEDED, read_cutouts
from gax_batch.catalog.condition import Condition
from gax_batch.catalog.draws import read_draws
from gax_batch.catalog.schema import CONDITIONAL_QUANTITIES, GALAXIES
from gax_batch.errors import UsageError
from gax_batch.export.selection import described
from gax_batch.models.bundle import load_bundle
from gax_batch.system.disk_database import Scratch
from gax_batch.system.extras import require_extra
from gax_batch.viewer.arguments import Columns, Ids, columns_of, ids_of, open_named, uri_of
from gax_batch.viewer.frames import arrow_type, astropy_table, html_table

if TYPE_CHECKING:
    import lsdb
    import pandas as pd
    import polars as pl
    from astropy.table import Table
    from matplotlib.axes import Axes

_SHOWN = 3


class Snapshot:
    """One snapshot, opened by `gax_batch.open_catalog`. It never changes, even if runs commit new snapshots.

    Attributes:
        uri: URI of the catalog.
        version: Number of the snapshot.
    """

    def __init__(
        self,
        uri: str | os.PathLike[str],
        version: int | None = None,
        sources: str | os.PathLike[str] | None = None,
    ) -> None:
        """Open it; see `gax_batch.open_catalog`."""
        self._sources = None if sources is None else uri_of(sources)
        self._catalog = open_named(uri_of(uri), version)
        self.uri = self._catalog.uri
        self.version = int(self._catalog.version or 0)

    def __len__(self) -> int:
        """Return the number of galaxies."""
        return self._catalog.galaxy_count()

    def __repr__(self) -> str:
        return f"<snapshot {self.version} of {self.uri}: {len(self):,} galaxies>"

    def _repr_html_(self) -> str:
        """Show the snapshot in a notebook, without reading its rows."""
        names = f"{len(self.columns)}: {', '.join(self.columns[:_SHOWN])}, ..."
        return html_table(
            {
                "catalog": self.uri,
                "snapshot": str(self.version),
                "galaxies": f"{len(self):,}",
                "columns": names,
            }
        )

    @property
    def columns(self) -> list[str]:
        """Names of all columns."""
        return list(GALAXIES.names)

    def head(self, n: int = 5, columns: Columns = None, where: str | None = None) -> "pd.DataFrame":
        """Return the first galaxies, as `to_pandas`; reads no more of the catalog than it needs.

        Args:
            n: Number of galaxies.
            columns: As for `to_arrow`.
            where: As for `to_arrow`.

        >>> import gax_batch
        >>> gax_batch.open_catalog("catalog").head(2, ["galaxy_id", "gz2_class"]).shape
        (2, 2)
        """
        names, left = columns_of(columns), max(0, n)
        taken: list[pa.Table] = []
        for rows in self._selected(names, where):
            taken.append(rows.slice(0, left))
            left -= len(taken[-1])
            if left <= 0:
                break
        frame: pd.DataFrame = _whole(names, taken).to_pandas()
        return frame

    def to_arrow(self, columns: Columns = None, where: str | None = None) -> pa.Table:
        """The galaxies, in memory, in no order.

        Args:
            columns: Names or globs (`*_prob`) of columns of the catalog, or one of them; all columns if None.
            where: An expression that they fulfill, as that of `gax publish --where`; none if None. The
                galaxies stream by, and only those that fulfill it are kept.

        Returns:
            N rows. Each field's metadata has its unit, UCD and description.

        Raises:
            UsageError: A column is unknown, the expression is not allowed, or a part of the snapshot is
                missing.

        >>> import gax_batch
        >>> snapshot = gax_batch.open_catalog("catalog")
        >>> table = snapshot.to_arrow(["galaxy_id", "ra"])
        >>> table.num_rows, table.column_names
        (4, ['galaxy_id', 'ra'])
        >>> table.schema.field("ra").metadata[b"unit"]
        b'deg'
        >>> snapshot.to_arrow(["galaxy_id"], where="galaxy_id >= '000003'").num_rows
        2
        """
        names = columns_of(columns)
        return _whole(names, self._selected(names, where))

    def to_pandas(self, columns: Columns = None, where: str | None = None) -> "pd.DataFrame":
        """As `to_arrow`, as a pandas data frame; null numbers are NaN.

        Write `frame["flags"]` for the column: `frame.flags` is an attribute of every data frame of pandas.

        >>> import gax_batch
        >>> snapshot = gax_batch.open_catalog("catalog")
        >>> snapshot.to_pandas(["galaxy_id"])["galaxy_id"].sort_values().tolist()
        ['000000', '000001', '000003', '000004']
        """
        frame: pd.DataFrame = self.to_arrow(columns, where).to_pandas()
        return frame

    def to_polars(self, columns: Columns = None, where: str | None = None) -> "pl.DataFrame":
        """As `to_arrow`, as a Polars data frame, mostly without a copy.

        Takes the arguments of `to_arrow`. Needs `pip install 'gax-batch[export]'`.

        Raises:
            UsageError: Polars is not installed, or as for `to_arrow`.

        >>> import gax_batch
        >>> gax_batch.open_catalog("catalog").to_polars(["galaxy_id", "ra"]).shape
        (4, 2)
        """
        require_extra("export", "to_polars", "polars")
        import polars as pl

        return pl.DataFrame(pl.from_arrow(self.to_arrow(columns, where)))

    def to_astropy(self, columns: Columns = None, where: str | None = None) -> "Table":
        """As `to_arrow`, as an Astropy table whose columns have units, descriptions and UCDs.

        Columns with nulls are masked; UCDs are in `column.meta["ucd"]`. The table's `meta` has
        the catalog, the number of the snapshot, and the bundles that made the rows.

        >>> import gax_batch
        >>> table = gax_batch.open_catalog("catalog").to_astropy(["galaxy_id", "dec"])
        >>> table["dec"].unit, table["dec"].description
        (Unit("deg"), 'declination, ICRS')
        """
        names = columns_of(columns)
        rows = self.to_arrow([*names, "bundle_id"], where)
        bundles = " ".join(sorted(rows["bundle_id"].unique().to_pylist()))
        meta = {"catalog": self.uri, "snapshot": self.version, "bundle_id": bundles}
        return astropy_table(rows.select(names), meta)

    def to_lsdb(self, columns: Columns = None, where: str | None = None) -> "lsdb.Catalog":
        """As `to_arrow`, as a catalog of LSDB, which crossmatches with others on the sky.

        Takes the arguments of `to_arrow`. Galaxies without a position are omitted. All others are in memory:
        publish a survey of more than a million galaxies (`gax publish --format hats`) and open it with
        `lsdb.open_catalog` instead. Needs `pip install 'gax-batch[export]'`.

        Raises:
            UsageError: LSDB is not installed, no galaxy has a position, or as for `to_arrow`.
        """
        require_extra("export", "to_lsdb", "lsdb")
        names = columns_of(columns)
        rows = self.to_arrow(list(dict.fromkeys([*names, "ra", "dec"])), where)
        placed = rows.filter(pc.and_(rows["ra"].is_valid(), rows["dec"].is_valid()))
        if not len(placed):
            raise UsageError(f"none of these {len(rows):,} galaxies has a position, which LSDB needs")
        import lsdb

        # LSDB reads the types of Arrow; pandas' own of text would come back as another one.
        frame = placed.to_pandas(types_mapper=arrow_type)
        return lsdb.from_dataframe(frame, ra_column="ra", dec_column="dec", catalog_name="galaxies")

    def galaxies(self, ids: Ids, columns: Columns = None) -> pa.Table:
        """Some galaxies, as `to_arrow`, in the order of their ids.

        Searches the ids of all parts, and reads only the parts that contain the galaxies.

        Args:
            ids: `galaxy_id` of each, N; one may come twice. One galaxy may be named without a list.
            columns: As for `to_arrow`.

        Raises:
            UsageError: A galaxy is not in the snapshot.

        >>> import gax_batch
        >>> found = gax_batch.open_catalog("catalog").galaxies(["000004", "000001"], ["galaxy_id", "flags"])
        >>> found["galaxy_id"].to_pylist()
        ['000004', '000001']
        """
        wanted = pa.array(ids_of(ids), pa.string())
        chosen = columns_of(columns)
        names = list(dict.fromkeys(["galaxy_id", *chosen]))
        parts = self._catalog.parts()
        holding = [
            part
            for part, rows in zip(parts, self._catalog.batches(["galaxy_id"]), strict=True)
            if pc.any(pc.is_in(rows["galaxy_id"], wanted)).as_py()
        ]
        read = (
            rows.filter(pc.is_in(rows["galaxy_id"], wanted)) for rows in self._catalog.batches(names, holding)
        )
        rows = _whole(names, read)
        places = pc.index_in(wanted, rows["galaxy_id"].combine_chunks())
        if places.null_count:
            lost = wanted.filter(pc.is_null(places)).to_pylist()
            raise UsageError(
                f"{len(lost):,} of {len(wanted):,} galaxies are not in snapshot {self.version} "
                f"({', '.join(lost[:_SHOWN])}); check their galaxy_id{self._example_of_an_id()}"
            )
        return rows.take(places).select(chosen)

    def rejects(self) -> pa.Table:
        """Return the cutouts that could not be cataloged, in memory, in any order.

        Returns:
            One row each: `galaxy_id`, `source_uri`, `source_version`, `stage`, `reason`, `detail`,
            `attempts`, `unit_id`, `run_id`.

        Raises:
            FatalError: A part of the snapshot is missing.

        >>> import gax_batch
        >>> gax_batch.open_catalog("catalog").rejects().column_names[3:5]
        ['stage', 'reason']
        """
        return self._catalog.rejects()

    def cutouts(self, ids: Ids) -> npt.NDArray[np.uint8]:
        """The pixels that the models saw, read again from the survey's own files.

        Args:
            ids: `galaxy_id` of each.

        Returns:
            RGB cutouts, uint8 `[N, 64, 64, 3]`, in the order of the ids.

        Raises:
            UsageError: A galaxy is not in the snapshot, or its source is missing, changed or unreadable.

        >>> import gax_batch
        >>> pixels = gax_batch.open_catalog("catalog").cutouts(["000001", "000003"])
        >>> pixels.shape, pixels.dtype
        ((2, 64, 64, 3), dtype('uint8'))
        """
        asked = ids_of(ids)
        each = list(dict.fromkeys(asked))
        rows = self.galaxies(each, NEEDED)
        found = read_cutouts(self.uri, rows, self._sources)
        if found.missing:
            place = min(found.missing)
            reject = found.missing[place]
            raise UsageError(
                f"{len(found.missing):,} of {len(rows):,} cutouts cannot be read, such as that of "
                f"{rows['galaxy_id'][place].as_py()} ({reject.reason}: {reject.detail}); bring the survey's "
                "files back, omit these galaxies, or name the folder that contains the files now, which "
                "also accepts files with other modification times: open_catalog(..., sources=FOLDER)"
            )
        place_of = {name: place for place, name in enumerate(each)}
        return found.pixels[[place_of[name] for name in asked]]

    def conditional(
        self,
        questions: str | Sequence[str] | None = None,
        where: str | None = None,
        bundle: str | os.PathLike[str] | None = None,
    ) -> pa.Table:
        """Return the fractions of the volunteers who are asked each question, with 90 % intervals.

        These are the fractions in the `..._debiased` columns of Galaxy Zoo's tables. They are derived from
        the columns of the catalog and the calibration of its bundle. The intervals are for galaxies for which
        at least one volunteer is asked. They are wide where few volunteers are expected to be asked.

        Args:
            questions: Names of questions, or their beginnings (`t04`), or one of them; all if None.
            where: As for `to_arrow`.
            bundle: Folder or URI of the bundle that made the catalog; the shipped one if None.

        Returns:
            N rows: `galaxy_id` and, for each answer, `<answer>_conditional`, `<answer>_conditional_lo` and
            `<answer>_conditional_hi`, float32.

        Raises:
            UsageError: Another bundle made the catalog, the bundle has no intervals of conditional fractions,
                the question does not exist, or as for `to_arrow`.
        """
        fitted = Conditional.of_bundle(load_bundle(None if bundle is None else uri_of(bundle)))
        questions = [questions] if isinstance(questions, str) else questions
        asked = gz2.QUESTIONS if questions is None else [gz2.find_question(name) for name in questions]
        answers = [answer for question in asked for answer in gz2.ANSWERS[question.columns]]
        names = ["galaxy_id", *(f"{answer}_{kind}" for answer in answers for kind in CONDITIONAL_QUANTITIES)]
        rows = self._selected(["galaxy_id", *NEEDED_BY_CONDITIONAL], where)
        return _whole(names, (fitted.add_to(part).select(names) for part in rows))

    def draws(self, ids: Ids) -> npt.NDArray[np.float32]:
        """The draws of some galaxies from the posterior; needs a catalog of `gax run --keep-draws`.

        Draw k of all galaxies is the same network: the mean over galaxies of draw k is one draw of the mean.

        Args:
            ids: `galaxy_id` of each of N galaxies, with or without repetitions.

        Returns:
            Cumulative fractions, float32 `[N, S, 37]`, in the order of the ids and of
            `gax_batch.gz2.ANSWERS`, accurate to 0.0005.

        Raises:
            UsageError: The catalog does not contain draws, or none of these galaxies.

        >>> import gax_batch
        >>> draws = gax_batch.open_catalog("catalog").draws(["000001", "000003"])
        >>> draws.shape, draws.dtype
        ((2, 4, 37), dtype('float32'))
        """
        return read_draws(self.uri, ids_of(ids), self.version)

    def plot(self, galaxy_id: str | int, axes: "Axes | None" = None) -> "Axes":
        """Draw the posterior of one galaxy as the tree of questions.

        Each answer is a row: its cumulative fraction (bar), the spread over posterior draws (thick line), and
        the calibrated 90 % interval (bracket). A branch leads from an answer to each question that follows
        it, and is as wide as the fraction of all volunteers who are asked this question.

        Args:
            galaxy_id: The galaxy.
            axes: Matplotlib's axes to draw on; new ones if None.

        Returns:
            The axes; `axes.figure.savefig("tree.png")` keeps the picture.

        Raises:
            UsageError: The galaxy is not in the snapshot, or Matplotlib is not installed.

        >>> import gax_batch
        >>> axes = gax_batch.open_catalog("catalog").plot("000001")
        >>> axes.get_title().split()[0]
        '000001'
        """
        require_extra("viewer", "plot", "matplotlib")
        from gax_batch.viewer.tree import plot_tree

        row: dict[str, Any] = self.galaxies(galaxy_id).to_pylist()[0]
        return plot_tree(row, axes)

    def _example_of_an_id(self) -> str:
        least = [low for low, _ in self._catalog.bounds_of_ids().values()]
        return f", which is text such as {min(least)!r}" if least else ""

    def _selected(self, names: Sequence[str], where: str | None) -> Iterator[pa.Table]:
        if where is None:
            yield from self._catalog.batches(names)
            return
        with tempfile.TemporaryDirectory(prefix="gax-") as folder, Scratch(Path(folder)) as scratch:
            condition = Condition(where, GALAXIES, scratch)
            for rows in self._catalog.batches(list(dict.fromkeys([*names, *condition.columns]))):
                yield condition.filter(rows).select(names)


def _whole(names: Sequence[str], tables: Iterable[pa.Table]) -> pa.Table:
    schema = pa.schema([column.field for column in described(names)])
    return pa.concat_tables([schema.empty_table(), *(table.cast(schema) for table in tables)])
