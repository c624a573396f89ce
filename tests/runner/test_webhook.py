"""The end of a run, posted to a real HTTP server."""

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from message_facts import numbers_in

from gax_batch.errors import UsageError
from gax_batch.runner.settings import load_settings
from gax_batch.runner.webhook import Webhook, summary_of
from gax_batch.system.messages import redirect_messages

PATH = "hooks/T0-very-secret"


class Receiver(ThreadingHTTPServer):
    """Answers with the statuses of `answers`, one after another, then 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[int] = []
        self.got: list[dict[str, object]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{PATH}"


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        assert self.headers["Content-Type"] == "application/json"
        self.server.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("GAX_HOOK", server.url)
        yield server
        server.shutdown()
        thread.join()


def sent(summary: dict[str, object]) -> list[str]:
    lines: list[str] = []
    with redirect_messages(lines.append):
        Webhook("GAX_HOOK", pause_seconds=0.01).send(summary)
    return lines


def test_a_summary_is_posted_once(receiver):
    assert sent({"status": "complete"}) == []
    assert receiver.got == [{"status": "complete"}]


@pytest.mark.parametrize(
    ("answers", "posts", "fact"),
    [
        ([503, 429], 3, None),
        ([500] * 9, 3, "500"),
        ([404], 1, "404"),
        ([302], 1, "302"),
    ],
)
def test_passing_faults_are_outlasted_within_bounds_and_others_are_said(receiver, answers, posts, fact):
    receiver.answers = answers
    lines = sent({"status": "failed"})
    assert [numbers_in(line) for line in lines] == ([[fact]] if fact else [])
    assert all("GAX_HOOK" in line for line in lines)
    assert len(receiver.got) == posts


def test_a_server_that_is_not_there_is_one_line_without_the_secret(receiver, monkeypatch):
    # Nobody listens on a port that a closed server had.
    gone = Receiver()
    gone.server_close()
    monkeypatch.setenv("GAX_HOOK", gone.url)
    (line,) = sent({"status": "complete"})
    assert re.search(r"GAX_HOOK.*ConnectionRefusedError", line)
    assert not re.search(r"https?:|secret", line)


def test_a_url_that_is_none_of_http_is_never_said(monkeypatch):
    monkeypatch.setenv("GAX_HOOK", "http://bad host/" + PATH)
    assert "secret" not in "".join(sent({}))
    monkeypatch.setenv("GAX_HOOK", "file:///etc/" + PATH)
    with pytest.raises(UsageError, match=r"GAX_HOOK.*--webhook.*https://") as caught:
        Webhook("GAX_HOOK")
    assert "secret" not in str(caught.value)
    monkeypatch.delenv("GAX_HOOK")
    with pytest.raises(UsageError, match=r"GAX_HOOK.*--webhook") as caught:
        Webhook("GAX_HOOK")
    assert "https://" not in str(caught.value)


def test_the_setting_takes_a_name_and_refuses_the_url_itself_without_repeating_it():
    values = {"input": "a", "catalog": "b"}
    assert load_settings(None, values | {"webhook": "GAX_HOOK"}).webhook == "GAX_HOOK"
    with pytest.raises(UsageError, match="webhook") as caught:
        load_settings(None, values | {"webhook": f"https://chat.example.org/{PATH}"})
    assert PATH not in str(caught.value)
    assert "example.org" not in str(caught.value)


def test_a_summary_tells_people_and_programs_how_a_run_ended():
    record = {
        "run_id": "r1",
        "status": "complete",
        "cause": None,
        "started": "2026-11-25T02:30:00+00:00",
        "settings": {"catalog": "s3://sky/catalog", "input": "s3://sky/cutouts"},
        "counts": {"galaxies": 1234, "rejects": 5, "units_failed": 0},
        "seconds": {"total": 10.0},
        "galaxies_per_second": 9.0,
        "snapshot": 3,
        "domain": None,
        "versions": {},
    }
    told = summary_of(record)
    for fact in ("r1", "complete", "s3://sky/catalog"):
        assert fact in told["text"]
    assert numbers_in(told["text"], "r1", "s3://sky/catalog") == ["0", "1,234", "5"]
    assert told["counts"] == record["counts"]
    assert told["snapshot"] == 3
    strange = record | {"domain": {"another_survey": True, "reasons": []}, "bundle_id": "b-1"}
    assert "b-1" in summary_of(strange)["text"]
    assert "settings" not in told
