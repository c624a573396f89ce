"""Formats in which a catalog can be published."""

from enum import StrEnum


class Format(StrEnum):
    """Format of a publication: a HATS collection, or one file."""

    HATS = "hats"
    PARQUET = "parquet"
    VOTABLE = "votable"
    FITS = "fits"
    CSV = "csv"
    ECSV = "ecsv"
