"""A store that takes what is written and does not have it."""

import obstore
import pytest
from catalogs import META, galaxies, local
from deltalake import DeltaTable
from obstore.store import MemoryStore

from gax_batch.catalog.snapshots import Catalog
from gax_batch.errors import FatalError, TransientError
from gax_batch.storage.object_store import PUT_ATTEMPTS, ObjectStore


@pytest.mark.parametrize("cut", [False, True], ids=["lost", "cut"])
@pytest.mark.parametrize("times", range(PUT_ATTEMPTS))
def test_an_object_that_is_lost_is_stored_again(monkeypatch, times, cut):
    store, puts, put = MemoryStore(), [], obstore.put

    def lossy(where, key, data):
        puts.append(key)
        if len(puts) > times:
            put(where, key, data)
        elif cut:
            put(where, key, data[:2])

    monkeypatch.setattr(obstore, "put", lossy)
    ObjectStore("memory://b", store).write("memory://b/x", b"part")
    assert bytes(obstore.get(store, "x").bytes()) == b"part"
    assert len(puts) == times + 1


def test_a_store_that_keeps_losing_it_is_named(monkeypatch):
    monkeypatch.setattr(obstore, "put", lambda *_: None)
    with pytest.raises(TransientError, match="s3://b/x"):
        ObjectStore("s3://b", MemoryStore()).write("s3://b/x", b"part")


def test_a_commit_that_is_lost_is_told_and_can_be_repeated(catalog, make_part, monkeypatch):
    parts = [make_part("u", ["a", "b"])]
    Catalog(catalog).commit([make_part("v", ["c"])], run_id="first", metadata=META)
    create = DeltaTable.create_write_transaction

    def lossy(table, *arguments, **named):
        create(table, *arguments, **named)
        newest = max((local(catalog) / "galaxies" / "_delta_log").glob("*.json"))
        newest.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(DeltaTable, "create_write_transaction", lossy)
        with pytest.raises(FatalError, match=f"{catalog}/galaxies"):
            Catalog(catalog).commit(parts, run_id="run", metadata=META)
    assert galaxies(catalog) == ["c"]
    Catalog(catalog).commit(parts, run_id="again", metadata=META)
    assert galaxies(catalog) == ["a", "b", "c"]
