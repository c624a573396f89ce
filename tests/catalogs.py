"""What readers see of a catalog, for its tests."""

from pathlib import Path

from deltalake import DeltaTable

from gax_batch.catalog.snapshots import Catalog

META = {"bundle_id": "bundle"}


def local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def galaxies(catalog: str) -> list[str]:
    return sorted(Catalog(catalog).galaxies(["galaxy_id"])["galaxy_id"].to_pylist())


def rejects(catalog: str) -> list[str]:
    return sorted(Catalog(catalog).rejects()["galaxy_id"].to_pylist())


def visible_rejects(catalog: str) -> list[str]:
    """What a reader of the rejects table sees that knows nothing of this package."""
    table = DeltaTable(str(local(catalog) / "rejects")).to_pyarrow_table()
    return sorted(table["galaxy_id"].to_pylist())
