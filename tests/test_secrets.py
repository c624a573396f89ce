"""A run with secrets in its environment leaves none of them anywhere, and its Ray is closed to strangers."""

import io
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_engine import fake_engine
from galaxy_images import jpeg_bytes
from s3.servers import environment, make_bucket, moto
from typer.testing import CliRunner

from gax_batch import storage
from gax_batch.cli import app
from gax_batch.errors import FatalError, GaxError
from gax_batch.runner import run as run_module
from gax_batch.runner.run import run_survey
from gax_batch.runner.settings import load_settings
from gax_batch.storage.listing import list_objects
from gax_batch.system.messages import redirect_messages
from gax_batch.viewer.report.build import write_report

CANARY = "canary-7f3a9e51d2"
SECRETS = {
    "AWS_ACCESS_KEY_ID": f"{CANARY}-id",
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}-key",
    "AWS_SESSION_TOKEN": f"{CANARY}-token",
    "AZURE_STORAGE_ACCOUNT_KEY": f"{CANARY}-azure",
    "GOOGLE_APPLICATION_CREDENTIALS": f"/{CANARY}-google.json",
    "SOME_PASSWORD": f"{CANARY}-other",
}


@pytest.fixture(scope="module")
def survey() -> Iterator[str]:
    with moto() as endpoint, environment(endpoint, **SECRETS):
        root = make_bucket("secrets")
        for number in range(9):
            storage.write_bytes(f"{root}/images/{number}.jpg", jpeg_bytes(number))
        storage.write_bytes(f"{root}/images/9.jpg", b"no image")
        yield root


def places_of(secret: str, texts: dict[str, bytes]) -> list[str]:
    """Where a secret is: as it is, and in the columns of Parquet files, which are packed."""
    found = []
    for name, data in texts.items():
        if name.endswith(".parquet"):
            table = pq.read_table(io.BytesIO(data))
            data += str(table.schema.metadata).encode() + str(table.to_pydict()).encode()
        if secret.encode() in data:
            found.append(name)
    return found


def ray_logs(since: float) -> dict[str, bytes]:
    """What this machine's Ray sessions have written since then."""
    folders = [path for path in Path("/tmp/ray").glob("session_2*") if path.stat().st_mtime >= since]  # noqa: S108
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    return {str(file): file.read_bytes() for file in files}


def test_the_search_finds_what_is_there():
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": [f"s3://{CANARY}@bucket"]}), sink, compression="zstd")
    texts = {"a.parquet": sink.getvalue(), "b.json": f'{{"x": "{CANARY}"}}'.encode(), "c": b"nothing"}
    assert places_of(CANARY, texts) == ["a.parquet", "b.json"]


def test_a_run_leaves_no_secret_anywhere(
    survey: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    since = psutil.Process().create_time()
    # The last unit has one good cutout, and fails with its cause.
    monkeypatch.setattr(run_module, "load_engine", partial(fake_engine, fail_on=1))
    values = {"input": f"{survey}/images", "catalog": f"{survey}/catalog", "unit_size": 4, "cpus": 2}
    said: list[str] = []
    strangers: list[str] = []

    def write(line: str) -> None:
        said.append(line)
        if ray_address() and not strangers:
            strangers.append(refusal_of_a_stranger())
            strangers.extend(open_to_others())

    with redirect_messages(write):
        assert run_survey(load_settings(None, values)).exit_code == 3
        write_report(f"{survey}/catalog", None, str(tmp_path / "report.html"))
    texts = {info.uri: storage.read_bytes(info.uri) for info in list_objects(survey)}
    written = [uri for uri in texts if not uri.startswith(f"{survey}/images/")]
    for part in ("_delta_log", "/plan/", "run.json", "galaxies/parts", "population/"):
        assert any(part in uri for uri in written), part
    texts |= {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    texts |= ray_logs(since)
    texts |= {"stdout": "\n".join(said).encode() + capfd.readouterr().out.encode()}
    assert places_of(CANARY, texts) == []
    assert strangers == ["refused"]


def ray_address() -> str | None:
    import ray

    return ray.get_runtime_context().gcs_address if ray.is_initialized() else None


def refusal_of_a_stranger() -> str:
    """What becomes of a process that joins this Ray without its token."""
    code = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); print('joined')"
    hidden = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "", "HOME": "/nonexistent"}
    hidden |= {"RAY_gcs_server_request_timeout_seconds": "3", "RAY_py_gcs_connect_timeout_s": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(ray_address())],
        env=os.environ | hidden,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return "refused" if "auth" in done.stderr.lower() and "joined" not in done.stdout else done.stderr


def open_to_others() -> list[str]:
    """Pages that this process and its children serve beyond loopback."""
    pids = {child.pid for child in psutil.Process().children(recursive=True)}
    listening = [c for c in psutil.net_connections("tcp") if c.pid in pids and c.status == psutil.CONN_LISTEN]
    assert listening
    return [str(c.laddr) for c in listening if c.laddr.port == 8265]


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://user:{CANARY}@bucket/x",
        f"s3://{CANARY}@bucket/x",
        f"https://user:{CANARY}@127.0.0.1/x.jpg",
        f"https://127.0.0.1/x.jpg?X-Amz-Signature={CANARY}",
        f"https://127.0.0.1/x.jpg#{CANARY}",
    ],
)
@pytest.mark.parametrize("flag", ["--input", "--catalog", "--positions", "--bundle", "--frame-index"])
def test_a_uri_with_a_secret_is_refused_without_repeating_it(uri: str, flag: str, tree: Path, tmp_path: Path):
    values = {"--input": str(tree), "--catalog": str(tmp_path / "catalog")} | {flag: uri}
    result = CliRunner().invoke(app, ["plan", *(word for pair in values.items() for word in pair)])
    assert isinstance(result.exception, GaxError), result.output
    assert CANARY not in f"{result.output}{result.exception}"
    assert not (tmp_path / "catalog").exists()


def test_errors_of_a_store_do_not_repeat_a_secret(survey: str):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with (
            environment(f"http://127.0.0.1:{closed.getsockname()[1]}", **SECRETS),
            pytest.raises((OSError, GaxError, FatalError)) as caught,
        ):
            storage.read_bytes(f"{survey}/images/0.jpg")
    assert CANARY not in str(caught.value)
