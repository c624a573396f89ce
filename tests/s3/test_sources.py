"""Loose images and shards on an S3 server (moto, in this process)."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile import encoded, galaxy
from moto.server import ThreadedMotoServer
from sky import write_field, write_table
from surveys import listed

from gax_batch import buckets, storage
from gax_batch.decoding import Decoder
from gax_batch.errors import UsageError
from gax_batch.imaging import ImageLimits, decode_cutout
from gax_batch.listing import list_objects
from gax_batch.sources import open_frames, open_source, read_unit

ROOT = "s3://survey"


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[str]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        buckets.forget_clients()
        with urlopen(Request(f"{endpoint}/survey", method="PUT"), timeout=10):  # noqa: S310
            pass
        yield endpoint
        buckets.forget_clients()
    moto.stop()


def read(members: pa.Table, **limits: int) -> pa.Table:
    return read_unit(members, Decoder(limits=ImageLimits(**limits)))


def test_loose_images() -> None:
    images = {f"{ROOT}/loose/{i % 3}/a b{i}.png": encoded(galaxy(106, seed=i)) for i in range(30)}
    for uri, data in images.items():
        storage.write_bytes(uri, data)
    storage.write_bytes(f"{ROOT}/loose/notes.txt", b"no image")
    storage.write_bytes(f"{ROOT}/loose/empty.jpg", b"")
    source = open_source(f"{ROOT}/loose/")
    members = listed(source)
    assert len(members) == 31
    assert source.ignored == 1
    info = storage.stat(members["source_uri"][0].as_py())
    assert info.version == members["source_version"][0].as_py()
    assert '"' not in info.version
    storage.delete(f"{ROOT}/loose/0/a b0.png")
    storage.write_bytes(f"{ROOT}/loose/0/a b3.png", encoded(galaxy(106, seed=99)))
    cutouts = read(members)
    reasons = dict(zip(members["source_uri"].to_pylist(), cutouts["reason"].to_pylist(), strict=True))
    assert {uri: reason for uri, reason in reasons.items() if reason} == {
        f"{ROOT}/loose/0/a b0.png": "missing",
        f"{ROOT}/loose/0/a b3.png": "changed",
        f"{ROOT}/loose/empty.jpg": "empty_file",
    }
    for uri, cutout in zip(members["source_uri"].to_pylist(), cutouts["cutout"].to_pylist(), strict=True):
        if reasons[uri] is None:
            assert cutout == decode_cutout(images[uri])[0].tobytes()
    assert set(read(members, bytes=100)["reason"].to_pylist()) == {"too_many_bytes", "empty_file"}


def test_globs_and_one_object() -> None:
    for name in ("x1.png", "x2.png", "y/x3.png"):
        storage.write_bytes(f"{ROOT}/globs/{name}", encoded(galaxy(64)))
    assert len(list_objects(f"{ROOT}/globs/*.png")) == 2
    assert len(list_objects(f"{ROOT}/globs/**/*.png")) == 3
    assert [i.uri for i in list_objects(f"{ROOT}/globs/x1.png")] == [f"{ROOT}/globs/x1.png"]


def test_shards() -> None:
    raw = [galaxy(64, seed=i).tobytes() for i in range(12)]
    for name, part in (("a", slice(0, 8)), ("b", slice(8, 12))):
        sink = pa.BufferOutputStream()
        ids = list(range(12))[part]
        pq.write_table(pa.table({"galaxy_id": ids, "image": raw[part]}), sink, row_group_size=3)
        storage.write_bytes(f"{ROOT}/shards/{name}.parquet", sink.getvalue().to_pybytes())
    members = listed(open_source(f"{ROOT}/shards"))
    assert members["galaxy_id"].to_pylist() == [str(i) for i in range(12)]
    assert read(members)["cutout"].to_pylist() == raw
    assert read(members.slice(5, 5))["cutout"].to_pylist() == raw[5:10]
    storage.write_bytes(f"{ROOT}/shards/b.parquet", b"another")
    assert read(members)["reason"].to_pylist() == [None] * 8 + ["changed"] * 4
    storage.delete(f"{ROOT}/shards/b.parquet")
    assert read(members)["reason"].to_pylist() == [None] * 8 + ["missing"] * 4


def test_what_is_not_there() -> None:
    for uri in (f"{ROOT}/nowhere", "s3://no-such-bucket/x", f"{ROOT}/no*.jpg"):
        with pytest.raises(UsageError):
            list_objects(uri)
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(f"{ROOT}/nowhere")
    assert not storage.exists(f"{ROOT}/nowhere")
    storage.write_bytes(f"{ROOT}/folder/x", b"")
    assert storage.exists(f"{ROOT}/folder")
    assert storage.exists(f"{ROOT}/folder/x")
    storage.delete(f"{ROOT}/folder/never")


def test_check_writable() -> None:
    storage.check_writable(f"{ROOT}/out")
    assert list_objects(f"{ROOT}/out", missing_ok=True) == []
    with pytest.raises(UsageError, match="cannot write"):
        storage.check_writable("s3://no-such-bucket/out")


def test_the_same_galaxies_in_every_package_are_the_same_cutouts(tmp_path: Path) -> None:
    images = {f"g{i}": encoded(galaxy(106, seed=i)) for i in range(4)}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in images.items():
            entry = tarfile.TarInfo(f"{name}.png")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
            storage.write_bytes(f"{ROOT}/ways/loose/{name}.png", data)
            (tmp_path / f"{name}.png").write_bytes(data)
    storage.write_bytes(f"{ROOT}/ways/tar/survey.tar", packed.getvalue())
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"galaxy_id": list(images), "image": list(images.values())}), sink)
    storage.write_bytes(f"{ROOT}/ways/parquet/survey.parquet", sink.getvalue().to_pybytes())
    expected = [decode_cutout(data)[0].tobytes() for data in images.values()]
    for place in (str(tmp_path), *(f"{ROOT}/ways/{way}" for way in ("loose", "tar", "parquet"))):
        members = listed(open_source(place))
        assert members["galaxy_id"].to_pylist() == list(images)
        assert read(members)["cutout"].to_pylist() == expected


def test_frames_in_a_bucket_are_those_on_a_disk(tmp_path: Path) -> None:
    write_field(tmp_path, "field", {(150.0, 2.0): 2.0})
    table = write_table(tmp_path / "galaxies.csv", {"a": (150.0, 2.0), "far": (10.0, 0.0)})
    for path in tmp_path.glob("*.fits"):
        storage.write_bytes(f"{ROOT}/frames/{path.name}", path.read_bytes())
    cutouts = [
        read(listed(open_frames(place, table, bands=("i", "r", "g"))))
        for place in (str(tmp_path), f"{ROOT}/frames")
    ]
    assert cutouts[0]["reason"].to_pylist() == cutouts[1]["reason"].to_pylist() == [None, "off_frame"]
    assert cutouts[0]["cutout"].equals(cutouts[1]["cutout"])
