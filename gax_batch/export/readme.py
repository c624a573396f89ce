"""Write the README of a published HATS collection: contents, usage and columns."""

from collections.abc import Iterator, Sequence

from gax_batch.catalog.schema import DESCRIPTION
from gax_batch.export.selection import described
from gax_batch.export.votable import TableProvenance
from gax_batch.gz2 import ANSWERS

MARK = "<!-- Written by gax publish, which replaces this file; delete this line to keep your own text. -->"

_BY_DEFAULT = frozenset(
    ["galaxy_id", "ra", "dec", "gz2_class", "gz2_class_margin", "ood_score", "flags"]
    + [f"{answer}_{quantity}" for answer in ANSWERS for quantity in ("prob", "conditional")]
)


def default_columns(names: Sequence[str]) -> list[str]:
    """Return the columns that are read by default: identifier, position, fractions, class and flags.

    If none of these is published, all columns are returned.
    """
    return [name for name in names if name in _BY_DEFAULT or name.endswith("_fraction")] or list(names)


def readme(provenance: TableProvenance, names: Sequence[str], rows: int, margin_arcsec: float) -> str:
    """Return the README in Markdown.

    Args:
        provenance: Provenance of the rows.
        names: Published columns.
        rows: Number of galaxies.
        margin_arcsec: Width of the margin cache; 0 for none.
    """
    return "\n".join(_lines(provenance, names, rows, margin_arcsec)) + "\n"


def _lines(
    provenance: TableProvenance, names: Sequence[str], rows: int, margin_arcsec: float
) -> Iterator[str]:
    margin = f" and a margin cache of {margin_arcsec:g} arcsec" if margin_arcsec else ""
    default = default_columns(names)
    yield from (
        MARK,
        f"# {_cell(provenance.title or 'Galaxy morphology')}",
        "",
        f"{DESCRIPTION[0].upper()}{DESCRIPTION[1:]}: {rows:,} galaxies.",
        "",
        f"This folder is a HATS collection: a catalog in HEALPix pixels{margin}.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {meaning} | {_cell(value)} |" for _, value, meaning in provenance.items()),
        "",
        "## Open it",
        "",
        "```python",
        "import lsdb",
        "",
        f'catalog = lsdb.open_catalog("FOLDER")  # {len(default):,} of {len(names):,} columns',
        'everything = lsdb.open_catalog("FOLDER", columns="all")',
        "```",
        "",
        "## Columns",
        "",
        "The columns in bold are read by default.",
        "",
        "| column | type | unit | UCD | description |",
        "|---|---|---|---|---|",
    )
    for column in described(names):
        name = f"**{column.name}**" if column.name in default else column.name
        cells = (name, str(column.type), column.unit, column.ucd, column.description)
        yield f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    """Escape text for a cell of a table in Markdown. Line breaks become spaces."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
