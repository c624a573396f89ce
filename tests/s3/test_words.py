"""What obstore and delta-rs tell in words alone, provoked with the libraries: new words fail here."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from s3.faults import Rates
from s3.servers import environment, make_bucket, proxied

from gax_batch import storage
from gax_batch.catalog import delta
from gax_batch.catalog.delta import Table
from gax_batch.errors import NoAnswerError, TransientError, UsageError
from gax_batch.storage import client_errors, object_store
from gax_batch.storage.listing import list_objects

KEY = "s3://bucket/k"
QUICK = {
    "max_retries": 1,
    "retry_timeout": timedelta(seconds=3),
    "backoff": {
        "init_backoff": timedelta(milliseconds=5),
        "max_backoff": timedelta(milliseconds=9),
        "base": 2,
    },
}
BROKEN = "broken off"
REDIRECT = (301, "PermanentRedirect")


class Store(ThreadingHTTPServer):
    """Answers every request alike: a status and a code, or half of a body."""

    daemon_threads = True
    answer: tuple[int, str] | str = BROKEN

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.answer == BROKEN:
            status, body, size = 200, b"x" * 100, 5000
        else:
            status, code = self.server.answer
            body = f"<Error><Code>{code}</Code><Message>no words of ours</Message></Error>".encode()
            size = len(body)
        self.send_response(status)
        self.send_header("Content-Length", str(size))
        self.send_header("ETag", '"v1"')
        self.send_header("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = size > len(body)

    do_HEAD = do_PUT = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(object_store, "RETRIES", QUICK)
    with Store(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        with environment(server.endpoint):
            yield server
        server.shutdown()
        thread.join()


def get() -> object:
    return storage.read_bytes(KEY)


def put() -> object:
    return storage.write_bytes(KEY, b"x")


def page() -> object:
    return storage.exists(KEY)


def walk() -> object:
    return list_objects("s3://bucket/folder")


@pytest.mark.parametrize("ask", [get, put, page])
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((401, "InvalidToken"), PermissionError),
        ((403, "AccessDenied"), PermissionError),
        ((400, "InvalidRequest"), OSError),
        ((429, "SlowDown"), TransientError),
        ((500, "InternalError"), TransientError),
        ((503, "SlowDown"), TransientError),
        (REDIRECT, TransientError),
    ],
)
def test_an_answer_has_the_class_of_its_status(
    store: Store, answer: tuple[int, str], kind: type[Exception], ask: Callable[[], object]
) -> None:
    store.answer = answer
    with pytest.raises(kind) as caught:
        ask()
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("ask", "code", "kind"),
    [
        (get, "NoSuchKey", FileNotFoundError),
        (get, "NoSuchBucket", client_errors.NoBucketError),
        (page, "NoSuchBucket", client_errors.NoBucketError),
    ],
)
def test_an_absence_says_whether_the_bucket_is_there(
    store: Store, ask: Callable[[], object], code: str, kind: type[Exception]
) -> None:
    store.answer = (404, code)
    with pytest.raises(kind) as caught:
        ask()
    assert type(caught.value) is kind


@pytest.mark.parametrize("answer", [(403, "AccessDenied"), (404, "NoSuchBucket")])
def test_a_listing_that_is_refused_is_the_user_s(store: Store, answer: tuple[int, str]) -> None:
    store.answer = answer
    with pytest.raises(UsageError, match="s3://bucket/folder"):
        walk()


def test_an_answer_that_breaks_off_passes(store: Store) -> None:
    store.answer = BROKEN
    with pytest.raises(TransientError) as caught:
        get()
    assert type(caught.value) is TransientError


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
@pytest.mark.parametrize("ask", [get, put, page])
def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, endpoint: str, ask: Callable[[], object]) -> None:
    monkeypatch.setattr(object_store, "RETRIES", QUICK)
    with environment(endpoint), pytest.raises(NoAnswerError):
        ask()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((403, "AccessDenied"), "s3://bucket/catalog"),
        ((401, "InvalidToken"), "s3://bucket/catalog"),
        ((404, "NoSuchBucket"), "s3://bucket/catalog"),
        ((400, "InvalidRequest"), "s3://bucket/catalog.*400"),
    ],
)
def test_a_table_that_the_store_refuses_is_the_user_s(
    store: Store, answer: tuple[int, str], words: str
) -> None:
    store.answer = answer
    with pytest.raises(UsageError, match=words):
        Table("s3://bucket/catalog")


def test_a_table_whose_listing_breaks_off_is_asked_for_again(moto_endpoint: str) -> None:
    """delta-rs asks again for the rest of an object, but not for a page of a listing."""
    with environment(moto_endpoint):
        uri = f"{make_bucket('cut')}/catalog"
        Table(uri).create("name", "description", pa.schema([("a", pa.int32())]))
        for number in range(30):  # so that the listing is long enough to be cut
            storage.write_bytes(f"{uri}/_delta_log/zz{number:03}.tmp", b"")
    asked = []

    def ask(location: str) -> DeltaTable:
        asked.append(location)
        return DeltaTable(location)

    with proxied(moto_endpoint, Rates(slow_down=0, drop=0, cut=1)) as endpoint, environment(endpoint):
        with pytest.raises(OSError, match="S3") as caught:
            delta._whole_answer(lambda: ask(uri))
        assert type(client_errors.fault(uri, str(caught.value))) is TransientError
        with pytest.raises(TransientError) as broken:
            list_objects(uri)
        assert type(broken.value) is TransientError
    assert len(asked) == delta.ANSWER_ATTEMPTS


def test_a_damaged_log_is_asked_for_once(tmp_path: Path) -> None:
    table = Table(str(tmp_path))
    table.create("name", "description", pa.schema([("a", pa.int32())]))
    log = tmp_path / "_delta_log" / f"{0:020}.json"
    log.write_bytes(log.read_bytes()[:200])
    with pytest.raises(DeltaError):
        DeltaTable(str(tmp_path))
    with pytest.raises(UsageError, match=str(tmp_path)):
        Table(str(tmp_path))
