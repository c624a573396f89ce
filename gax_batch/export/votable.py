"""Metadata of published columns as a VOTable without rows, which VOTable, VOParquet and FITS-plus share.

VOTable 1.5 (IVOA Recommendation of 2025-01-16) and VOParquet 1.0 (IVOA Note of 2025-01-16), which is a
VOTable without rows in the footer of a Parquet file. Positions refer to a COOSYS. There is no TIMESYS: no
column is a time.
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
VERSION = "1.5"
TABLE_NAME = "galaxies"

_SYSTEM = "icrs"
_NUMBER = re.compile(r"(?<=<DESCRIPTION>)\s*#(\d+)\s*(?=</DESCRIPTION>)")
_DATATYPES = {pa.float32(): "float", pa.float64(): "double", pa.int32(): "int", pa.int64(): "long"}


@dataclass(frozen=True, slots=True)
class TableProvenance:
    """Provenance of published rows.

    Attributes:
        catalog: URI of the catalog.
        snapshot: Number of the catalog's snapshot.
        bundle_ids: Bundles that made the rows.
        where: Expression that every row fulfills; None for no condition.
        published: Time of the publication, UTC, ISO 8601 without a zone.
        title: Title of the publication, in the words of its author.
        reference: Publication to cite: a bibcode, a DOI or a URL.
        license: License of the publication: a name or a URL.
    """

    catalog: str
    snapshot: int
    bundle_ids: tuple[str, ...] = ()
    where: str | None = None
    published: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}")
    title: str | None = None
    reference: str | None = None
    license: str | None = None

    def items(self) -> Iterator[tuple[str, str, str]]:
        """Yield the name, value and meaning of each fact."""
        yield "catalog", self.catalog, "catalog of the rows"
        yield "snapshot", str(self.snapshot), "version of that catalog"
        yield "bundle_id", " ".join(self.bundle_ids), "models that made the rows"
        if self.where is not None:
            yield "selection", self.where, "expression that every row fulfills"
        yield "published", self.published, "when the rows were published (UTC)"
        yield "creator", f"gax-batch {__version__}", "software that published the rows"
        if self.title is not None:
            yield "title", self.title, "title of the publication"
        if self.reference is not None:
            yield "reference", self.reference, "publication to cite"
        if self.license is not None:
            yield "license", self.license, "license of the publication"


@dataclass(frozen=True, slots=True)
class Text:
    """Width of a text column: characters of its longest value, and whether all values are ASCII."""

    # At least 2: VOTable 1.3, erratum 3, deprecates arraysize="1".
    width: int = 2
    ascii: bool = True


def votable_header(
    columns: Sequence[Column],
    provenance: TableProvenance,
    *,
    rows: int | None = None,
    texts: Mapping[str, Text] | None = None,
) -> str:
    """Return a VOTable with the FIELD of every column and without rows.

    Args:
        columns: Columns in their order.
        provenance: Provenance of the rows; each fact becomes one INFO.
        rows: Number of rows of the table.
        texts: Widths of text columns; a column that is missing here has variable width.
    """
    from astropy.io.votable.tree import CooSys, Field, Info, Resource, TableElement, VOTableFile

    votable = VOTableFile(version=VERSION)
    resource = Resource()
    votable.resources.append(resource)
    if any(_is_position(column) for column in columns):
        known = {"version": VERSION, "version_1_3_or_later": True, "version_1_5_or_later": True}
        system = CooSys(ID=_SYSTEM, system="ICRS", refposition="BARYCENTER", config=known)
        resource.coordinate_systems.append(system)
    table = TableElement(votable, name=TABLE_NAME, nrows=rows)
    descriptions = [DESCRIPTION, *(column.description for column in columns)]
    table.description = "#0"
    resource.tables.append(table)
    for name, value, meaning in provenance.items():
        info = Info(name=name, value=value)
        info.content = meaning
        # Astropy makes an ID of the name; IDs are unique, and a column may have the same name.
        info.ID = None
        resource.infos.append(info)
    for number, column in enumerate(columns, 1):
        described = Field(
            votable,
            name=column.name,
            ID=column.name,
            unit=column.unit or None,
            ucd=column.ucd,
            ref=_SYSTEM if _is_position(column) else None,
            **_datatype(column, (texts or {}).get(column.name)),
        )
        described.description = f"#{number}"
        table.fields.append(described)
    buffer = io.BytesIO()
    votable.to_xml(buffer)
    # Astropy breaks lines after hyphens, which readers turn into spaces. So astropy writes numbers instead.
    return _NUMBER.sub(lambda found: escape(descriptions[int(found[1])]), buffer.getvalue().decode())


def _is_position(column: Column) -> bool:
    return column.ucd.startswith("pos.eq")


def voparquet(header: str) -> dict[str, str]:
    """Return the keys of a Parquet footer that contain a VOTable without rows."""
    return {VOPARQUET["version"]: "1.0", VOPARQUET["content"]: header}


def _datatype(column: Column, text: Text | None) -> dict[str, str]:
    if column.type in _DATATYPES:
        return {"datatype": _DATATYPES[column.type]}
    if text is None:
        return {"datatype": "char", "arraysize": "*"}
    return {"datatype": "char" if text.ascii else "unicodeChar", "arraysize": str(text.width)}
