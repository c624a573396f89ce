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
    """Names of the published fractions: Galaxy Zoo's friendly table, or the advanced table of Zoobot."""

    GZ = "gz"
    ZOOBOT = "zoobot"
