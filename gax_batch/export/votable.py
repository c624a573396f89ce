"""What is said of published columns, as a VOTable without rows: VOTable, VOParquet and FITS-plus share it.

VOTable 1.4 (Ochsenbein et al. 2019, IVOA Recommendation) and VOParquet 1.0 (IVOA Note of 2025-01-16), which
is a VOTable without rows in the footer of a Parquet file.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from xml.sax.saxutils import escape  # writes only

import pyarrow as pa

from gax_batch import __version__
from gax_batch.catalog.schema import DESCRIPTION, Column

VOPARQUET = {"version": "IVOA.VOTable-Parquet.version", "content": "IVOA.VOTable-Parquet.content"}
TABLE_NAME = "galaxies"

_NUMBER = re.compile(r"(?<=<DESCRIPTION>)\s*#(\d+)\s*(?=</DESCRIPTION>)")
_DATATYPES = {pa.float32(): "float", pa.float64(): "double", pa.int32(): "int", pa.int64(): "long"}


@dataclass(frozen=True, slots=True)
class TableProvenance:
    """Where published rows come from.

    Attributes:
        catalog: URI of the catalog.
        snapshot: Its version.
        bundle_ids: The models that made the rows.
        where: The expression that chose them, if any.
        published: When, ISO 8601 without a zone, UTC.
    """

    catalog: str
    snapshot: int
    bundle_ids: tuple[str, ...] = ()
    where: str | None = None
    published: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}")

    def items(self) -> Iterator[tuple[str, str, str]]:
        """Name, value and meaning of each fact."""
        yield "catalog", self.catalog, "catalog that the rows are of"
        yield "snapshot", str(self.snapshot), "version of that catalog"
        yield "bundle_id", " ".join(self.bundle_ids), "models that made the rows"
        if self.where is not None:
            yield "selection", self.where, "expression that every row fulfills"
        yield "published", self.published, "when the rows were published (UTC)"
        yield "creator", f"gax-batch {__version__}", "software that published the rows"


@dataclass(frozen=True, slots=True)
class Text:
    """How wide a column of text is: characters of its longest value, and whether all are ASCII."""

    width: int = 1
    ascii: bool = True


def votable_header(
    columns: Sequence[Column],
    provenance: TableProvenance,
    *,
    rows: int | None = None,
    texts: Mapping[str, Text] | None = None,
) -> str:
    """A VOTable with every column's FIELD and no rows.

    Args:
        columns: In their order.
        provenance: Becomes one INFO for each fact.
        rows: How many the table has.
        texts: The widths of columns of text; variable where they are not known.
    """
    from astropy.io.votable.tree import CooSys, Field, Info, Resource, TableElement, VOTableFile

    votable = VOTableFile(version="1.4")
    resource = Resource()
    votable.resources.append(resource)
    resource.coordinate_systems.append(CooSys(ID="icrs", system="ICRS", config={"version": "1.4"}))
    table = TableElement(votable, name=TABLE_NAME, nrows=rows)
    descriptions = [DESCRIPTION, *(column.description for column in columns)]
    table.description = "#0"
    resource.tables.append(table)
    for name, value, meaning in provenance.items():
        info = Info(name=name, value=value)
        info.content = meaning
        resource.infos.append(info)
    for number, column in enumerate(columns, 1):
        described = Field(
            votable,
            name=column.name,
            ID=column.name,
            unit=column.unit or None,
            ucd=column.ucd,
            ref="icrs" if column.ucd.startswith("pos.eq") else None,
            **_datatype(column, (texts or {}).get(column.name)),
        )
        described.description = f"#{number}"
        table.fields.append(described)
    buffer = io.BytesIO()
    votable.to_xml(buffer)
    # Astropy breaks lines after hyphens, of which readers make a space; so what it writes are numbers.
    return _NUMBER.sub(lambda found: escape(descriptions[int(found[1])]), buffer.getvalue().decode())


def voparquet(header: str) -> dict[str, str]:
    """The keys of a Parquet footer that carry a VOTable without rows."""
    return {VOPARQUET["version"]: "1.0", VOPARQUET["content"]: header}


def _datatype(column: Column, text: Text | None) -> dict[str, str]:
    if column.type in _DATATYPES:
        return {"datatype": _DATATYPES[column.type]}
    if text is None:
        return {"datatype": "char", "arraysize": "*"}
    return {"datatype": "char" if text.ascii else "unicodeChar", "arraysize": str(text.width)}
