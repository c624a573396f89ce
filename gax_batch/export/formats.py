"""What a catalog can be published as."""

from enum import StrEnum


class Format(StrEnum):
    """A HATS collection, or one file."""

    HATS = "hats"
    PARQUET = "parquet"
    VOTABLE = "votable"
    FITS = "fits"
    CSV = "csv"
    ECSV = "ecsv"
