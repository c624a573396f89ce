"""S3 servers: moto's (always there), Ceph's gateway, and Ceph's behind a proxy that injects faults."""

from collections.abc import Iterator

import pytest
from s3 import ceph
from s3.servers import environment, make_bucket, moto, proxied


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """A stand-in for S3, in this process."""
    with moto() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def ceph_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 server; skipped where Ceph is not installed."""
    if missing := ceph.missing_programs():
        pytest.skip(f"Ceph's {', '.join(missing)} not installed: `make s3-server` installs a real S3 server")
    with ceph.running(tmp_path_factory.mktemp("ceph")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def faulty_endpoint(ceph_endpoint: str) -> Iterator[str]:
    """The real server behind a proxy: 10 % of requests refused, 5 % dropped, 3 % of long answers cut."""
    with proxied(ceph_endpoint) as endpoint:
        yield endpoint


@pytest.fixture(scope="module", params=["moto_endpoint", "ceph_endpoint", "faulty_endpoint"])
def root(request: pytest.FixtureRequest) -> Iterator[str]:
    """One of the three servers in the environment; the URI of a new bucket of its."""
    name = f"{request.param.removesuffix('_endpoint')}-{request.module.__name__.rpartition('.')[2]}"
    with environment(request.getfixturevalue(request.param)):
        yield make_bucket(name.replace("_", "-"))
