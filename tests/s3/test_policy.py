"""The storage policy of deploy/ is enough for a run and allows nothing else, on Ceph as a user of its own."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from catalogs import catalog_of
from galaxy_images import jpeg_bytes
from s3 import ceph
from s3.servers import environment, make_bucket

from gax_batch import storage
from gax_batch.catalog.snapshots import Catalog
from gax_batch.catalog.vacuum import vacuum
from gax_batch.cluster.unit import UnitOptions

POLICY = Path(__file__).resolve().parents[2] / "deploy" / "storage-policy.json"
WORKER = {"AWS_ACCESS_KEY_ID": ceph.WORKER_ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": ceph.WORKER_SECRET_KEY}
NAMES = {
    "INPUT-BUCKET": "policy-input",
    "INPUT-PREFIX": "cutouts",
    "CATALOG-BUCKET": "policy-catalog",
    "CATALOG-PREFIX": "survey",
}


@pytest.fixture(scope="module")
def endpoint(ceph_endpoint: str) -> Iterator[str]:
    """Two buckets whose owner lets the worker do what the policy says."""
    with environment(ceph_endpoint):
        for bucket in (NAMES["INPUT-BUCKET"], NAMES["CATALOG-BUCKET"]):
            make_bucket(bucket)
            owner = boto3.client("s3", endpoint_url=ceph_endpoint)
            owner.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy_of(bucket)))
        for number in range(6):
            storage.write_bytes(f"s3://policy-input/cutouts/{number}.jpg", jpeg_bytes(number))
        for uri in ("s3://policy-input/other/x.jpg", "s3://policy-catalog/other/x.json"):
            storage.write_bytes(uri, b"secret")
    return ceph_endpoint


def policy_of(bucket: str) -> dict[str, object]:
    """What a role's policy says of one bucket, as that bucket's own policy."""
    text = POLICY.read_text(encoding="utf-8")
    for placeholder, name in NAMES.items():
        text = text.replace(placeholder, name)
    policy = json.loads(text)
    statements = []
    for statement in policy["Statement"]:
        mine = [r for r in statement["Resource"] if r.removeprefix("arn:aws:s3:::").split("/")[0] == bucket]
        if mine and "s3:DeleteObject" in statement["Action"]:
            mine.append(f"arn:aws:s3:::{bucket}")  # of which Ceph asks where objects are deleted in bulk
        if mine:
            principal = {"AWS": [f"arn:aws:iam:::user/{ceph.WORKER}"]}
            statements.append(statement | {"Resource": mine, "Principal": principal})
    return policy | {"Statement": statements}


def test_a_run_needs_no_more(endpoint: str, options: UnitOptions):
    with environment(endpoint, **WORKER):
        catalog = "s3://policy-catalog/survey/catalog"
        storage.check_writable(catalog)
        options = replace(options, catalog=catalog)
        catalog_of("s3://policy-input/cutouts", options)
        assert Catalog(catalog).galaxies()["galaxy_id"].to_pylist() == [str(i) for i in range(6)]
        vacuum(catalog, keep_days=1)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://policy-input/cutouts/0.jpg",
        "s3://policy-input/new.jpg",
        "s3://policy-catalog/other/x.json",
        "s3://policy-catalog/new.json",
    ],
)
def test_nothing_else_may_be_written(endpoint: str, uri: str):
    with environment(endpoint, **WORKER), pytest.raises(PermissionError):
        storage.write_bytes(uri, b"overwritten")


def test_no_input_may_be_deleted(endpoint: str):
    with environment(endpoint, **WORKER), pytest.raises(PermissionError):
        storage.delete("s3://policy-input/cutouts/0.jpg")


@pytest.mark.parametrize("uri", ["s3://policy-input/other/x.jpg", "s3://policy-catalog/other/x.json"])
def test_nothing_else_may_be_read(endpoint: str, uri: str):
    with environment(endpoint, **WORKER), pytest.raises(PermissionError):
        storage.read_bytes(uri)
