"""What concerns a whole command is one line and exit 2, and no secret is in it."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3 import ceph
from s3.servers import environment, make_bucket
from typer.testing import CliRunner

from gax_batch.cli import app
from gax_batch.errors import UsageError

BUCKET = "s3://errors"


@pytest.fixture(scope="module")
def endpoint(ceph_endpoint: str) -> str:
    with environment(ceph_endpoint):
        make_bucket("errors")
    return ceph_endpoint


@pytest.fixture
def silent_endpoint() -> Iterator[str]:
    """Takes connections and hangs up."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: every connection is refused
        yield f"http://127.0.0.1:{closed.getsockname()[1]}"


def refusal(place: str, catalog: str) -> str:
    """The one line that `gax plan` fails with."""
    result = CliRunner().invoke(app, ["plan", "--input", place, "--catalog", catalog])
    assert isinstance(result.exception, UsageError)
    (line,) = str(result.exception).splitlines()
    assert ceph.SECRET_KEY not in line
    return line


@pytest.mark.parametrize(
    ("place", "changes", "words"),
    [
        (f"{BUCKET}/nothing", {}, f"{BUCKET}/nothing"),
        ("s3://no-such-bucket/x", {}, "s3://no-such-bucket/x"),
        (BUCKET, {"AWS_SECRET_ACCESS_KEY": "wrong"}, BUCKET),
        (BUCKET, {"AWS_ACCESS_KEY_ID": "expired"}, BUCKET),
    ],
)
def test_of_the_input(endpoint: str, tmp_path: Path, place: str, changes: dict[str, str], words: str) -> None:
    with environment(endpoint, **changes):
        assert words in refusal(place, str(tmp_path / "catalog"))


@pytest.mark.parametrize(
    ("catalog", "changes", "words"),
    [
        ("s3://no-such-bucket/catalog", {}, "s3://no-such-bucket/catalog"),
        (f"{BUCKET}/catalog", {"AWS_SECRET_ACCESS_KEY": "wrong"}, f"{BUCKET}/catalog"),
    ],
)
def test_of_the_catalog(endpoint: str, tree: Path, catalog: str, changes: dict[str, str], words: str) -> None:
    with environment(endpoint, **changes):
        assert words in refusal(str(tree), catalog)


def test_an_endpoint_that_does_not_answer(silent_endpoint: str, tmp_path: Path, tree: Path) -> None:
    with environment(silent_endpoint):
        assert BUCKET in refusal(BUCKET, str(tmp_path / "catalog"))
        assert f"{BUCKET}/catalog" in refusal(str(tree), f"{BUCKET}/catalog")
