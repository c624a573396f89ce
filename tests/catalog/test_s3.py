"""A catalog on a real S3 interface: the commit's safety rests on what the server does."""

import pytest
from catalogs import META, galaxies
from deltalake import DeltaTable

from gax_batch.catalog.parts import find_finished
from gax_batch.catalog.snapshots import Catalog, read_run_record, write_run_record
from gax_batch.errors import UsageError


@pytest.fixture
def root(s3_bucket, request) -> str:
    return f"{s3_bucket}/{request.node.name}/catalog"


def test_create_commit_replace_and_read_back(root, make_part):
    assert Catalog(root).version is None
    parts = [make_part("u", ["a", "b"], ["x"], root=root), make_part("v", ["c"], root=root)]
    found = find_finished(root, "settings", [(p.unit_id, p.fingerprint) for p in parts])
    assert found == {p.unit_id: p for p in parts}
    Catalog(root).commit(parts, run_id="run-1", metadata=META)
    Catalog(root).commit(
        [make_part("u", ["a"], ["b"], version="2", root=root)], run_id="run-2", metadata=META
    )
    assert galaxies(root) == ["a", "c"]
    assert Catalog(root).rejects()["galaxy_id"].to_pylist() == ["b"]
    table = DeltaTable(f"{root}/galaxies", storage_options={"AWS_ALLOW_HTTP": "true"})
    assert sorted(table.to_pyarrow_table(columns=["galaxy_id"])["galaxy_id"].to_pylist()) == ["a", "c"]
    write_run_record(root, "run-2", {"status": "complete"})
    assert read_run_record(root, "run-2") == {"status": "complete"}


def test_of_two_commits_on_one_snapshot_the_server_refuses_one(root, make_part):
    Catalog(root).commit([make_part("u", ["a"], root=root)], run_id="run-1", metadata=META)
    ours, theirs = Catalog(root), Catalog(root)
    theirs.commit([make_part("u", ["a"], version="2", root=root)], run_id="theirs", metadata=META)
    with pytest.raises(UsageError, match=f"{root}/galaxies"):
        ours.commit([make_part("u", ["a"], version="3", root=root)], run_id="ours", metadata=META)
    Catalog(root).commit([make_part("v", ["b"], root=root)], run_id="run-2", metadata=META)
    assert galaxies(root) == ["a", "b"]


def test_a_bucket_that_does_not_exist_is_the_users_mistake_on_one_line(s3_bucket):
    with pytest.raises(UsageError, match="no-such-bucket") as caught:
        Catalog("s3://no-such-bucket/catalog")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
