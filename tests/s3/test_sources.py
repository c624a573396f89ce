"""Every package of galaxies on an S3 server: a stand-in, a real one, and the real one failing."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_images import encoded, galaxy
from listings import listed
from sky_fields import write_field, write_table

from gax_batch import storage
from gax_batch.errors import UsageError
from gax_batch.imaging.cutout import ImageLimits, decode_cutout
from gax_batch.imaging.decoding import Decoder
from gax_batch.sources import open_frames, open_source, read_unit
from gax_batch.storage.listing import list_objects


def read(members: pa.Table, **limits: int) -> pa.Table:
    return read_unit(members, Decoder(limits=ImageLimits(**limits)))


def test_loose_images(root: str) -> None:
    images = {f"{root}/loose/{i % 3}/a b{i}.png": encoded(galaxy(106, seed=i)) for i in range(30)}
    for uri, data in images.items():
        storage.write_bytes(uri, data)
    storage.write_bytes(f"{root}/loose/notes.txt", b"no image")
    storage.write_bytes(f"{root}/loose/empty.jpg", b"")
    source = open_source(f"{root}/loose/")
    members = listed(source)
    assert len(members) == 31
    assert source.ignored == 1
    info = storage.stat(members["source_uri"][0].as_py())
    assert info.version == members["source_version"][0].as_py()
    assert '"' not in info.version
    storage.delete(f"{root}/loose/0/a b0.png")
    storage.write_bytes(f"{root}/loose/0/a b3.png", encoded(galaxy(106, seed=99)))
    cutouts = read(members)
    reasons = dict(zip(members["source_uri"].to_pylist(), cutouts["reason"].to_pylist(), strict=True))
    assert {uri: reason for uri, reason in reasons.items() if reason} == {
        f"{root}/loose/0/a b0.png": "missing",
        f"{root}/loose/0/a b3.png": "changed",
        f"{root}/loose/empty.jpg": "empty_file",
    }
    for uri, cutout in zip(members["source_uri"].to_pylist(), cutouts["cutout"].to_pylist(), strict=True):
        if reasons[uri] is None:
            assert cutout == decode_cutout(images[uri])[0].tobytes()
    assert set(read(members, bytes=100)["reason"].to_pylist()) == {"too_many_bytes", "empty_file"}


def test_globs_and_one_object(root: str) -> None:
    for name in ("x1.png", "x2.png", "y/x3.png"):
        storage.write_bytes(f"{root}/globs/{name}", encoded(galaxy(64)))
    assert len(list_objects(f"{root}/globs/*.png")) == 2
    assert len(list_objects(f"{root}/globs/**/*.png")) == 3
    assert [i.uri for i in list_objects(f"{root}/globs/x1.png")] == [f"{root}/globs/x1.png"]


def test_shards(root: str) -> None:
    raw = [galaxy(64, seed=i).tobytes() for i in range(12)]
    for name, part in (("a", slice(0, 8)), ("b", slice(8, 12))):
        sink = pa.BufferOutputStream()
        ids = list(range(12))[part]
        pq.write_table(pa.table({"galaxy_id": ids, "image": raw[part]}), sink, row_group_size=3)
        storage.write_bytes(f"{root}/shards/{name}.parquet", sink.getvalue().to_pybytes())
    members = listed(open_source(f"{root}/shards"))
    assert members["galaxy_id"].to_pylist() == [str(i) for i in range(12)]
    assert read(members)["cutout"].to_pylist() == raw
    assert read(members.slice(5, 5))["cutout"].to_pylist() == raw[5:10]
    storage.write_bytes(f"{root}/shards/b.parquet", b"another")
    assert read(members)["reason"].to_pylist() == [None] * 8 + ["changed"] * 4
    storage.delete(f"{root}/shards/b.parquet")
    assert read(members)["reason"].to_pylist() == [None] * 8 + ["missing"] * 4


def test_what_is_not_there(root: str) -> None:
    for uri in (f"{root}/nowhere", "s3://no-such-bucket/x", f"{root}/no*.jpg"):
        with pytest.raises(UsageError):
            list_objects(uri)
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(f"{root}/nowhere")
    assert not storage.exists(f"{root}/nowhere")
    storage.write_bytes(f"{root}/folder/x", b"")
    assert storage.exists(f"{root}/folder")
    assert storage.exists(f"{root}/folder/x")
    storage.delete(f"{root}/folder/never")


def test_check_writable(root: str) -> None:
    storage.check_writable(f"{root}/out")
    assert list_objects(f"{root}/out", missing_ok=True) == []
    with pytest.raises(UsageError, match="s3://no-such-bucket/out"):
        storage.check_writable("s3://no-such-bucket/out")


def test_frames_in_a_bucket_are_those_on_a_disk(root: str, tmp_path: Path) -> None:
    write_field(tmp_path, "field", {(150.0, 2.0): 2.0})
    table = write_table(tmp_path / "galaxies.csv", {"a": (150.0, 2.0), "far": (10.0, 0.0)})
    for path in tmp_path.glob("*.fits"):
        storage.write_bytes(f"{root}/frames/{path.name}", path.read_bytes())
    cutouts = [
        read(listed(open_frames(place, table, bands=("i", "r", "g"))))
        for place in (str(tmp_path), f"{root}/frames")
    ]
    assert cutouts[0]["reason"].to_pylist() == cutouts[1]["reason"].to_pylist() == [None, "off_frame"]
    assert cutouts[0]["cutout"].equals(cutouts[1]["cutout"])
