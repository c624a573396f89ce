"""A store that takes what is written and does not have it."""

import obstore
import pytest
from catalogs import META, galaxies, local
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from obstore.store import MemoryStore

from gax_batch.catalog.snapshots import Catalog
from gax_batch.errors import FatalError, TransientError
from gax_batch.runner.record import commit_of
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


@pytest.mark.parametrize("rival", [False, True], ids=["alone", "before another run's commit"])
def test_a_commit_whose_answer_is_lost_is_committed_once(catalog, make_part, monkeypatch, rival):
    gone = make_part("gone", ["z"])
    Catalog(catalog).commit([make_part("u", ["a"]), gone], run_id="first", metadata=META)
    parts = [make_part("u", ["a"], ["x"], version="2"), make_part("v", ["b"])]
    opened, theirs, create = Catalog(catalog), make_part("w", ["c"]), DeltaTable.create_write_transaction

    def unanswered(table, *arguments, **named):
        monkeypatch.setattr(DeltaTable, "create_write_transaction", create)
        create(table, *arguments, **named)
        if rival:
            Catalog(catalog).commit([theirs], run_id="theirs", metadata=META)
        # The store's client repeats the write, which finds its own log file.
        raise CommitFailedError("the version exists already")

    monkeypatch.setattr(DeltaTable, "create_write_transaction", unanswered)
    version = opened.commit(parts, run_id="ours", metadata=META, removed=[gone.unit_id])
    assert galaxies(catalog) == (["a", "b", "c"] if rival else ["a", "b"])
    commits = [entry.version for entry in Catalog(catalog).history() if entry.facts.get("run_id") == "ours"]
    assert commits == [version - rival]
    assert commit_of(catalog, "ours").version == commits[0]
    assert commit_of(catalog, "never") is None
