"""What tests against an S3 server share: its environment and its buckets."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path

import pytest
import s3fs
from s3 import ceph
from s3.faults import Rates
from waiting import free_port, http_status, wait_for

from gax_batch.storage import object_store

BROKEN_REQUESTS = 20
START_SECONDS = 60


@contextmanager
def environment(endpoint: str, **changes: str) -> Iterator[None]:
    """The settings under which this process and its children speak to a server."""
    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": ceph.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": ceph.SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        **changes,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        object_store.forget_clients()
        yield
    object_store.forget_clients()


@contextmanager
def moto() -> Iterator[str]:
    """A stand-in for S3; its endpoint.

    In a process of its own, as the proxy: delta-rs does not let other threads run while it commits.
    """
    port = free_port()
    with _process("-m", "moto.server", "-H", "127.0.0.1", "-p", port):
        endpoint = f"http://127.0.0.1:{port}"
        wait_for(lambda: http_status(endpoint) is not None, "moto", START_SECONDS)
        yield endpoint


@contextmanager
def proxied(upstream: str, rates: Rates = Rates()) -> Iterator[str]:  # noqa: B008  (frozen)
    """The proxy that injects faults, before a server; its endpoint."""
    with script("s3/faults.py", upstream, *map(str, astuple(rates))) as endpoint:
        yield endpoint


@contextmanager
def script(name: str, *arguments: str) -> Iterator[str]:
    """A server that is a script below `tests/` and prints its port; its endpoint."""
    path = Path(__file__).parents[1] / name
    with _process(str(path), *arguments) as process:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"


@contextmanager
def _process(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def make_bucket(name: str) -> str:
    """Create an empty bucket (obstore cannot); its URI."""
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    files.retries = BROKEN_REQUESTS
    files.mkdir(name)
    return f"s3://{name}"
