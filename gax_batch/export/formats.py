"""Formats and names of columns in which a catalog can be published."""

from enum import StrEnum


class Format(StrEnum):
    """Format of a publication: a HATS collection, or one file."""

    HATS = "hats"
    PARQUET = "parquet"
    VOTABLE = "votable"
    FITS = "fits"
    CSV = "csv"
    ECSV = "ecsv"


class Names(StrEnum):
    """Naming scheme of the published fractions: friendly table of Galaxy Zoo, or advanced table of Zoobot."""

    GZ = "gz"
    ZOOBOT = "zoobot"
