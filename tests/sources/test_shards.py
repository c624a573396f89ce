import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from bad_images import encoded, galaxy
from listings import listed

from gax_batch import storage
from gax_batch.errors import FatalError, TransientError, UsageError
from gax_batch.imaging.decoding import Decoder
from gax_batch.sources import CUTOUT_SCHEMA, MEMBER_SCHEMA, open_source, read_unit
from gax_batch.sources import parquet as parquet_module

FINAL = np.stack([galaxy(64, seed=i) for i in range(6)])
RAW = [pixels.tobytes() for pixels in FINAL]


def write(path: Path, image: Any, rows_per_group: int = 2, name: str = "image", **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"galaxy_id": [f"g{i}" for i in range(len(image))]} | columns
    pq.write_table(pa.table(columns | {name: image}), path, row_group_size=rows_per_group)


def read(members: pa.Table) -> pa.Table:
    cutouts = read_unit(members, Decoder())
    assert cutouts.schema.equals(CUTOUT_SCHEMA)
    assert cutouts["source_uri"].equals(members["source_uri"])
    return cutouts


def test_list_members(tmp_path: Path) -> None:
    shard = tmp_path / "a.parquet"
    write(shard, RAW, ra=[1.0, np.nan, None, 400.0, 5.0, 6.0], dec=[1.0, np.nan, None, 0.0, None, 6.0])
    write(tmp_path / "b.pq", RAW[:2], galaxy_id=["g0", "new"])
    (tmp_path / "_SUCCESS").write_bytes(b"")
    source = open_source(str(tmp_path))
    members = listed(source)
    assert members.schema.equals(MEMBER_SCHEMA)
    assert source.ignored == 1
    assert members["galaxy_id"].to_pylist() == ["g0", "g1", "g2", "g3", "g4", "g5", "g0", "new"]
    assert members["row"].to_pylist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert members["ra"].to_pylist() == [1.0, None, None, 400.0, 5.0, 6.0, None, None]
    bad = "bad_position"
    assert members["reason"].to_pylist() == [None, None, None, bad, bad, None, "duplicate_id", None]
    first = members.slice(0, 1).to_pylist()[0]
    assert first["object_uri"] == f"file://{shard}"
    assert first["source_uri"] == f"file://{shard}#row=000000000"
    assert first["source_version"] == f"{shard.stat().st_size}-{shard.stat().st_mtime_ns}"
    assert first["size"] > 10_000


def test_rows_are_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", RAW * 20, galaxy_id=np.arange(120))
    members = listed(open_source(str(tmp_path)))
    assert members["row"].to_pylist() == list(range(120))
    assert members["galaxy_id"].to_pylist() == [str(i) for i in range(120)]


def nested(pixels: np.ndarray, dtype: pa.DataType) -> pa.Array:
    return pa.array(pixels.tolist(), pa.list_(pa.list_(pa.list_(dtype))))


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(nested(FINAL.astype(np.uint16) * 257, pa.uint16()), id="uint16"),
        pytest.param(nested(FINAL / 255, pa.float64()), id="float64"),
    ],
)
def test_tensors_of_other_numbers(tmp_path: Path, image: pa.Array) -> None:
    write(tmp_path / "a.parquet", image)
    assert read(listed(open_source(str(tmp_path))))["cutout"].to_pylist() == RAW


@pytest.mark.parametrize("name", ["image", "cutout", "bytes"])
@pytest.mark.parametrize(
    "ids", [pa.int32(), pa.uint64(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
)
def test_names_and_id_types(tmp_path: Path, name: str, ids: pa.DataType) -> None:
    galaxy_id = pa.array(["3", "1", "2"]).dictionary_encode() if pa.types.is_dictionary(ids) else None
    galaxy_id = pa.array([3, 1, 2]).cast(ids) if galaxy_id is None else galaxy_id
    write(tmp_path / "a.parquet", RAW[:3], name=name, galaxy_id=galaxy_id)
    assert listed(open_source(str(tmp_path)))["galaxy_id"].to_pylist() == ["3", "1", "2"]


def test_bad_rows_are_rejected_and_the_others_read(tmp_path: Path) -> None:
    cells = [RAW[0], None, b"", b"no image", encoded(galaxy(128))[:900], bytes(12288), RAW[5]]
    write(
        tmp_path / "a.parquet", pa.array(cells, pa.binary()), galaxy_id=["a", "b", "c", "d", "e", "f", None]
    )
    cutouts = read(listed(open_source(str(tmp_path))))
    assert cutouts["reason"].to_pylist() == [
        None,
        "empty_file",
        "empty_file",
        "not_an_image",
        "truncated",
        "blank",
        "bad_id",
    ]


def test_raw_cutouts_are_taken_together_but_for_those_that_need_a_look(tmp_path: Path) -> None:
    same_in_the_middle = FINAL[1].copy()
    same_in_the_middle[32, 32] = same_in_the_middle[0, 0]
    image = encoded(FINAL[2])
    padded = image + bytes(12288 - len(image))
    good = [RAW[0], bytes([7]) * 12288, same_in_the_middle.tobytes(), RAW[3]]
    write(tmp_path / "a.parquet", pa.array(good, pa.binary(12288)), rows_per_group=4)
    write(
        tmp_path / "b.parquet",
        pa.array([*RAW[:2], padded, None], pa.binary(12288)),
        galaxy_id=["b0", "b1", "b2", "b3"],
    )
    cutouts = read(listed(open_source(str(tmp_path))))
    assert cutouts["reason"].to_pylist() == [None, "blank", None, None, None, None, None, "empty_file"]
    expected = [RAW[0], None, same_in_the_middle.tobytes(), RAW[3], *RAW[:3], None]
    assert cutouts["cutout"].to_pylist() == expected
    some = read(listed(open_source(str(tmp_path / "a.parquet"))).take([3, 0]))
    assert some["cutout"].to_pylist() == [RAW[3], RAW[0]]


def test_bad_tensors_are_rejected(tmp_path: Path) -> None:
    nan = (FINAL[0] / 255).copy()
    nan[30, 30, 1] = np.nan
    cells = [
        (FINAL[0] / 255).tolist(),
        nan.tolist(),
        [[[0.5, 0.5, 0.5]], [[0.5, 0.5, 0.5], [0.1, 0.1, 0.1]]],
        [],
        [[[0.1, None, 0.3]]],
        None,
    ]
    write(tmp_path / "a.parquet", pa.array(cells, pa.list_(pa.list_(pa.list_(pa.float32())))))
    cutouts = read(listed(open_source(str(tmp_path))))
    shape = "wrong_shape"
    assert cutouts["reason"].to_pylist() == [None, "not_finite", shape, shape, shape, "empty_file"]


def test_a_unit_reads_only_its_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.parquet", RAW * 4, rows_per_group=4, galaxy_id=np.arange(24))
    write(tmp_path / "b.parquet", RAW[::-1], galaxy_id=np.arange(24, 30))
    members = listed(open_source(str(tmp_path)))
    groups: list[int] = []
    iterate = pq.ParquetFile.iter_batches

    def spy(self: pq.ParquetFile, size: int, row_groups: list[int], columns: list[str]) -> Any:
        groups.extend(row_groups)
        assert columns == ["image"]
        return iterate(self, size, row_groups=row_groups, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    expected = RAW * 4 + RAW[::-1]
    assert read(members.slice(9, 4))["cutout"].to_pylist() == expected[9:13]
    assert groups == [2, 3]
    scattered = [29, 3, 17, 24, 16]
    assert read(members.take(scattered))["cutout"].to_pylist() == [expected[i] for i in scattered]
    assert read(members)["cutout"].to_pylist() == expected


def test_limit_reads_no_more_shards_than_it_needs(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", RAW)
    (tmp_path / "b.parquet").write_bytes(b"never looked at")
    assert len(listed(open_source(str(tmp_path), limit=4))) == 4


def test_positions_stand_above_the_shard_s(tmp_path: Path) -> None:
    write(tmp_path / "s" / "a.parquet", RAW[:3], ra=[1.0, 2.0, None], dec=[1.0, 2.0, None])
    (tmp_path / "p.csv").write_text("galaxy_id,ra,dec\ng1,20,30\ng2,40,50\n")
    members = listed(open_source(str(tmp_path / "s")), str(tmp_path / "p.csv"))
    assert members["ra"].to_pylist() == [1.0, 20.0, 40.0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [1], "image": [b"x"]}, "galaxy_id.*id, image"),
        (
            {"galaxy_id": [1], "picture": [b"x"]},
            "image, cutout, bytes.*galaxy_id, picture",
        ),
        ({"galaxy_id": [1], "image": [3.5]}, "image.*double"),
        ({"galaxy_id": [1], "image": ["a/path.jpg"]}, "image.*string"),
        ({"galaxy_id": [1], "image": [{"path": "x"}]}, "image.*struct"),
        ({"galaxy_id": [1.5], "image": [b"x"]}, "galaxy_id.*double"),
        ({"galaxy_id": [1], "image": [b"x"], "ra": ["12h"], "dec": ["1"]}, r"\bra\b.*string"),
    ],
)
def test_shard_with_wrong_columns(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=message) as caught:
        listed(open_source(str(tmp_path)))
    assert "a.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_that_is_no_parquet(tmp_path: Path) -> None:
    for content in (b"", b"PAR1", b"text" * 100):
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(UsageError, match=r"a\.parquet"):
            listed(open_source(str(tmp_path)))


def test_empty_shard(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", pa.array([], pa.binary()), galaxy_id=pa.array([], pa.string()))
    write(tmp_path / "b.parquet", RAW[:1])
    assert len(listed(open_source(str(tmp_path)))) == 1


def test_shard_that_went_or_changed_after_the_listing(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / f"{name}.parquet", RAW[:2], galaxy_id=[f"{name}1", f"{name}2"])
    members = listed(open_source(str(tmp_path)))
    (tmp_path / "a.parquet").unlink()
    os.utime(tmp_path / "b.parquet", ns=(1, 1))
    cutouts = read(members)
    assert cutouts["reason"].to_pylist() == ["missing"] * 2 + ["changed"] * 2 + [None] * 2
    assert cutouts["stage"].to_pylist() == ["read"] * 4 + [None] * 2


def test_damaged_shard_is_fatal_for_its_unit(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(path, RAW, rows_per_group=6)
    data = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(0).column(1).dictionary_page_offset
    data[start : start + 400] = bytes(400)
    path.write_bytes(bytes(data))
    members = listed(open_source(str(tmp_path)))
    with pytest.raises(FatalError, match=r"a\.parquet"):
        read(members)


def test_shard_with_fewer_rows_than_listed(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", RAW)
    members = listed(open_source(str(tmp_path)))
    rows = pc.add(members["row"], 3)
    with pytest.raises(FatalError, match=r"a\.parquet.*\b6\b.*\b8\b"):
        read(members.set_column(members.schema.get_field_index("row"), "row", rows))


def test_memory_is_bounded_by_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_module, "_BATCH_ROWS", 2)
    write(tmp_path / "a.parquet", RAW, rows_per_group=6)
    assert read(listed(open_source(str(tmp_path))))["cutout"].to_pylist() == RAW


def test_shard_that_the_storage_refuses_is_fatal_for_its_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.parquet", RAW[:2])
    members = listed(open_source(str(tmp_path)))

    def fail_with(error: Exception) -> None:
        def fail(uri: str) -> None:
            raise error

        monkeypatch.setattr(storage, "stat", fail)

    for refused in (PermissionError(13, "Permission denied"), OSError(5, "Input/output error")):
        fail_with(refused)
        with pytest.raises(FatalError, match=rf"a\.parquet.*{refused.strerror}") as caught:
            read(members)
        assert caught.value.__cause__ is refused
    fail_with(TransientError("the store keeps failing"))
    with pytest.raises(TransientError, match="keeps failing"):
        read(members)


def test_a_shard_with_fewer_rows_than_listed_costs_no_row_of_another(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / f"{name}.parquet", RAW, galaxy_id=[f"{name}{i}" for i in range(6)])
    members = listed(open_source(str(tmp_path)))
    rows = members["row"].to_pylist()
    rows[6:] = [row + 3 for row in rows[6:]]
    place = members.schema.get_field_index("row")
    cutouts = read(members.set_column(place, "row", pa.array(rows, pa.int64())))
    assert cutouts["reason"].to_pylist() == [None] * 6 + ["unreadable"] * 6


def test_shard_whose_name_is_not_utf8(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", RAW[:2])
    (tmp_path / "a.parquet").rename(tmp_path / os.fsdecode(b"\xe9.parquet"))
    with pytest.raises(UsageError, match=r"udce9\.parquet.*UTF-8"):
        listed(open_source(str(tmp_path)))


def test_the_catalog_s_parts_are_no_shards(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", RAW[:2])
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "part.parquet").write_bytes(b"no shard")
    source = open_source(str(tmp_path), exclude=f"file://{tmp_path}/catalog")
    assert len(listed(source)) == 2
