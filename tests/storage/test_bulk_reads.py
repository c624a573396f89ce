"""Bulk reading from a server that misbehaves."""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from gax_batch.errors import FatalError, TransientError
from gax_batch.rejects import RejectError
from gax_batch.storage import ObjectInfo, bulk_reads, client_errors, object_store, read_bytes, stat
from gax_batch.storage.bulk_reads import fetch_each
from gax_batch.storage.listing import list_objects

BODY = b"x" * 5000


@dataclass
class Faults:
    """What the server does: per path a list of statuses, the last one for ever (0 cuts the body short)."""

    root: str = ""
    statuses: dict[str, list[int]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_status(self, path: str) -> int:
        with self.lock:
            self.requests[path] += 1
            statuses = self.statuses.get(path, [200])
            return statuses.pop(0) if len(statuses) > 1 else statuses[0]


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    state = Faults()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            with state.lock:
                state.at_once += 1
                state.most_at_once = max(state.most_at_once, state.at_once)
            status = state.next_status(self.path)
            self.send_response(status or 200)
            body = BODY if status in (0, 200) else b"fault"
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"v1"')
            self.send_header("Last-Modified", "Mon, 23 Nov 2026 00:00:00 GMT")
            self.end_headers()
            with state.lock:
                state.at_once -= 1
            if self.command == "GET":
                self.wfile.write(body if status else body[:100])
            self.close_connection = status == 0

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    quick = {
        "max_retries": 2,
        "retry_timeout": timedelta(seconds=5),
        "backoff": {
            "init_backoff": timedelta(milliseconds=5),
            "max_backoff": timedelta(milliseconds=20),
            "base": 2,
        },
    }
    monkeypatch.setattr(object_store, "RETRIES", quick)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.root = f"http://127.0.0.1:{server.server_port}"
    object_store.forget_clients()
    yield state
    object_store.forget_clients()
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(faults: Faults, count: int, *, max_bytes: int = 10_000, size: int = 5000) -> list[str]:
    """`ok` or the reason, per object `/0`, `/1` and so on."""
    outcomes: list[str] = [""] * count

    def handle(index: int, found: bytes | RejectError) -> None:
        assert not outcomes[index]
        assert isinstance(found, RejectError) or found == BODY
        outcomes[index] = str(found.reject.reason) if isinstance(found, RejectError) else "ok"

    objects = [ObjectInfo(f"{faults.root}/{i}", size, "v1") for i in range(count)]
    fetch_each(objects, handle, max_bytes=max_bytes)
    return outcomes


def test_passing_faults_are_retried(faults: Faults) -> None:
    faults.statuses = {"/1": [500, 200], "/2": [503, 503, 200], "/3": [429, 200], "/4": [0, 0, 200]}
    assert fetch(faults, 6) == ["ok"] * 6
    assert [faults.requests[f"/{i}"] for i in range(6)] == [1, 2, 3, 2, 3, 1]


def test_each_object_s_own_fault_is_its_reject(faults: Faults) -> None:
    faults.statuses = {"/1": [404], "/2": [403], "/3": [503], "/4": [400], "/5": [0]}
    assert fetch(faults, 20) == ["ok", "missing"] + ["unreadable"] * 4 + ["ok"] * 14
    assert faults.requests["/3"] == 3


def test_storage_that_keeps_failing_fails_the_unit_soon(faults: Faults) -> None:
    faults.statuses = {f"/{i}": [503] for i in range(200)}
    with pytest.raises(TransientError, match=r"\b9\b.*\b200\b.*503"):
        fetch(faults, 200)
    assert len(faults.requests) < 150


def test_storage_that_refuses_is_fatal(faults: Faults) -> None:
    faults.statuses = {f"/{i}": [403] for i in range(3)}
    with pytest.raises(FatalError, match=r"\b3 \w+ 3\b"):
        fetch(faults, 3)


def test_requests_are_bounded_in_number_and_bytes(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fetch(faults, 300) == ["ok"] * 300
    assert 1 < faults.most_at_once <= bulk_reads.MAX_REQUESTS
    monkeypatch.setattr(bulk_reads, "MAX_BYTES_IN_FLIGHT", 10_000)
    faults.most_at_once = 0
    assert fetch(faults, 40) == ["ok"] * 40
    assert faults.most_at_once <= 2


def test_too_many_bytes_by_listing_and_by_answer(faults: Faults) -> None:
    assert fetch(faults, 1, max_bytes=4999) == ["too_many_bytes"]
    assert fetch(faults, 1, size=-1, max_bytes=4999) == ["too_many_bytes"]


def test_nobody_there(faults: Faults) -> None:
    nobody = Faults(root="http://127.0.0.1:9")
    with pytest.raises(TransientError):
        fetch(nobody, 2)


def test_one_object_over_http(faults: Faults) -> None:
    uri = f"{faults.root}/a/1.jpg"
    assert list_objects(uri) == [stat(uri)] == [ObjectInfo(uri, 5000, "v1")]
    assert read_bytes(uri) == BODY


def test_errors_do_not_tell_secrets() -> None:
    error = OSError("GET https://x.blob.core.windows.net/c/k?sig=SECRET&se=1 failed\nDebug source: SECRET")
    assert "SECRET" not in client_errors.one_line(error)
