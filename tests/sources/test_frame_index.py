"""The index of frames: which headers are opened, what a hostile index does, and where it is kept."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from listings import listed
from sky_fields import write_field, write_table

from gax_batch import storage
from gax_batch.errors import TransientError, UsageError
from gax_batch.sources import frame_index as module
from gax_batch.sources import open_frames
from gax_batch.sources.frame_index import INDEX_NAME, INDEX_SCHEMA
from gax_batch.system.messages import redirect_messages

BANDS = ("i", "r", "g")
PLACES = {"a": (150.0, 2.0), "b": (151.0, 2.0), "c": (152.0, 2.0), "far": (10.0, 0.0)}


class Survey:
    """Three fields with a galaxy each; tells how many headers each listing opened, and what was said."""

    def __init__(self, folder: Path, opened: list[str]) -> None:
        self.frames = folder / "frames"
        self.frames.mkdir()
        for name in "abc":
            write_field(self.frames, name, {}, ra=PLACES[name][0])
        self.positions = write_table(folder / "galaxies.csv", PLACES)
        self.index = self.frames / INDEX_NAME
        self.lines: list[str] = []
        self._opened = opened

    def listed(self, uri: str | None = None, **options: object) -> tuple[dict[str, str], int]:
        """Each galaxy's field, and how many headers were opened."""
        self._opened.clear()
        self.lines.clear()
        kept = {"index_folder": str(self.frames), "keep_index": True}
        options = {"bands": BANDS} | kept | options
        with redirect_messages(self.lines.append):
            members = listed(open_frames(uri or str(self.frames), self.positions, **options))
        fields = [uri.rsplit("/", 1)[-1][0] for uri in members["object_uri"].to_pylist()]
        reasons = members["reason"].to_pylist()
        found = {
            galaxy: reason or field
            for galaxy, field, reason in zip(members["galaxy_id"].to_pylist(), fields, reasons, strict=True)
        }
        return found, len(self._opened)


GOOD = {"a": "a", "b": "b", "c": "c", "far": "off_frame"}


@pytest.fixture
def survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Survey:
    opened: list[str] = []
    read = module._read_header

    def counted(frame: dict[str, str]) -> dict[str, object] | str:
        opened.append(frame["field"])
        return read(frame)

    monkeypatch.setattr(module, "_read_header", counted)
    return Survey(tmp_path, opened)


def numbers(lines: list[str]) -> list[list[str]]:
    """The whole numbers of each line."""
    return [re.findall(r"\d+", line) for line in lines]


def test_a_night_over_unchanged_frames_opens_no_header(survey):
    assert survey.listed() == (GOOD, 3)
    assert numbers(survey.lines) == [["3", "3"]]
    before = survey.index.stat()
    assert survey.listed() == (GOOD, 0)
    assert survey.lines == []
    after = survey.index.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)


def test_not_even_their_first_byte(survey, monkeypatch):
    survey.listed()

    def refuse(uri: str) -> object:
        if uri.endswith(".fits"):
            raise AssertionError(f"{uri} was opened")
        return opened(uri)

    opened = storage.open_binary
    monkeypatch.setattr(storage, "open_binary", refuse)
    assert survey.listed() == (GOOD, 0)


def test_only_new_and_changed_frames_are_opened(survey):
    survey.listed()
    write_field(survey.frames, "d", {}, ra=153.0)
    (survey.frames / "b-g-7.fits").touch()
    (survey.frames / "c-r-7.fits").touch()  # not the band that tells where the field is
    assert survey.listed() == (GOOD, 2)
    assert numbers(survey.lines) == [["2", "4"]]
    assert survey.listed() == (GOOD, 0)
    stored = pq.read_table(survey.index)
    assert stored.schema.equals(INDEX_SCHEMA, check_metadata=True)
    assert stored["field"].to_pylist() == [f"file://{survey.frames}/{n}-{{band}}-7.fits" for n in "abcd"]
    assert set(stored["band"].to_pylist()) == {"g"}
    assert stored["pixel_arcsec"].to_pylist() == pytest.approx([0.4] * 4)


def test_a_frame_that_moved_on_the_sky_is_found_where_it_is_now(survey):
    survey.listed()
    for path in survey.frames.glob("b-*"):
        path.unlink()
    write_field(survey.frames, "b", {}, ra=200.0)
    assert survey.listed() == (GOOD | {"b": "off_frame"}, 1)


def test_frames_that_went_leave_the_index(survey):
    survey.listed()
    for path in survey.frames.glob("b-*"):
        path.unlink()
    assert survey.listed() == (GOOD | {"b": "off_frame"}, 0)
    assert len(pq.read_table(survey.index)) == 2


def test_a_field_without_its_first_band_is_told_by_the_next(survey):
    survey.listed()
    (survey.frames / "a-g-7.fits").unlink()
    assert survey.listed() == (GOOD, 1)
    assert survey.listed() == (GOOD, 0)


def test_a_part_of_the_frames_and_other_bands_leave_the_rest_of_the_index_alone(survey):
    survey.listed()
    some = f"{survey.frames}/a-*.fits"
    assert survey.listed(some) == (GOOD | {"b": "off_frame", "c": "off_frame"}, 0)
    assert survey.listed(bands=("i",))[1] == 3
    assert survey.listed(bands=("i",)) == (GOOD, 0)
    assert survey.listed() == (GOOD, 0)


def test_the_index_is_no_frame_and_not_counted_as_ignored(survey):
    survey.listed()
    (survey.frames / "notes.txt").write_text("no frame")
    source = open_frames(str(survey.frames), survey.positions, bands=BANDS)
    listed(source)
    assert source.ignored == 1


def test_an_index_in_a_folder_of_its_own_serves_several_surveys(survey, tmp_path):
    kept = tmp_path / "kept"
    other = tmp_path / "other"
    other.mkdir()
    write_field(other, "x", {}, ra=150.0)
    assert survey.listed(index_folder=str(kept)) == (GOOD, 3)
    assert survey.listed(str(other), index_folder=str(kept))[1] == 1
    assert survey.listed(index_folder=str(kept)) == (GOOD, 0)
    assert survey.listed(str(other), index_folder=str(kept))[1] == 0
    assert not survey.index.exists()
    assert [path.name for path in kept.iterdir()] == [INDEX_NAME]


def test_an_index_is_read_but_not_written_where_nothing_may_be_written(survey):
    assert survey.listed(keep_index=False) == (GOOD, 3)
    assert not survey.index.exists()
    survey.listed()
    before = survey.index.read_bytes()
    (survey.frames / "b-g-7.fits").touch()
    assert survey.listed(keep_index=False) == (GOOD, 1)
    assert survey.index.read_bytes() == before


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), TransientError("503")], ids=str)
def test_a_place_that_cannot_be_written_is_told_and_the_run_goes_on(survey, monkeypatch, error):
    write = storage.write_bytes

    def refuse(uri: str, data: bytes) -> None:
        if uri.endswith(INDEX_NAME):
            raise error
        write(uri, data)

    monkeypatch.setattr(storage, "write_bytes", refuse)
    assert survey.listed() == (GOOD, 3)
    assert f"file://{survey.index}" in survey.lines[0]
    assert "--frame-index" in survey.lines[0]


def test_a_torn_write_leaves_the_old_index(survey, monkeypatch):
    survey.listed()
    before = survey.index.read_bytes()
    (survey.frames / "b-g-7.fits").touch()

    class FullError(OSError):
        pass

    def tear(path: Path, target: Path) -> None:
        assert path.stat().st_size > 1000
        raise FullError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", tear)
    assert survey.listed() == (GOOD, 1)
    assert "No space left on device" in survey.lines[0]
    assert survey.index.read_bytes() == before
    assert not list(survey.frames.glob(".*.tmp"))
    monkeypatch.undo()


def rewritten(**changes: Callable[[pa.Table], pa.Array]) -> Callable[[bytes], bytes]:
    """The same index with other columns."""

    def change(data: bytes) -> bytes:
        table = pq.read_table(pa.BufferReader(data))
        for name, make in changes.items():
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.schema.field(name), make(table))
        return parquet(table)

    return change


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def flipped(data: bytes) -> bytes:
    """One bit of a coefficient is another."""
    chunk = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0).column(11)
    first = chunk.dictionary_page_offset or chunk.data_page_offset
    place = first + chunk.total_compressed_size - 9
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "text": lambda _: b"galaxy_id,ra,dec\n1,2,3\n",
    "cut": lambda data: data[: len(data) // 2],
    "no end": lambda data: data[:-4],
    "zeros in the middle": lambda data: data[:400] + bytes(400) + data[800:],
    "another table": lambda _: parquet(pa.table({"galaxy_id": ["1"], "ra": [1.0]})),
    "another version": lambda data: parquet(
        pq.read_table(pa.BufferReader(data)).replace_schema_metadata({"gax_batch": "frame index 2"})
    ),
    "no mark": lambda data: parquet(pq.read_table(pa.BufferReader(data)).replace_schema_metadata({})),
    "a flipped bit": flipped,
    "NaN": rewritten(pixels=lambda t: pa.array([[np.nan] * 42] * len(t), t["pixels"].type)),
    "a strange order": rewritten(healpix_order=lambda t: pa.array([99] * len(t), pa.int8())),
    "cells beyond the last": rewritten(healpix=lambda t: pa.array([[2**62]] * len(t), t["healpix"].type)),
    "no width": rewritten(width=lambda t: pa.array([0] * len(t), pa.int32())),
    "twice": lambda data: parquet(pa.concat_tables([pq.read_table(pa.BufferReader(data))] * 2)),
}


@pytest.mark.parametrize("kind", list(HOSTILE))
def test_an_index_that_is_damaged_or_foreign_is_built_again_and_told(survey, kind):
    survey.listed()
    good = survey.index.read_bytes()
    survey.index.write_bytes(HOSTILE[kind](good))
    assert survey.listed() == (GOOD, 3)
    assert f"file://{survey.index}" in survey.lines[0]
    assert "\n" not in survey.lines[0]
    assert pq.read_table(survey.index).equals(pq.read_table(pa.BufferReader(good)))
    assert survey.listed() == (GOOD, 0)


@pytest.mark.parametrize("seed", range(12))
def test_damaged_bytes_never_raise_and_never_move_a_galaxy(survey, seed):
    survey.listed()
    rng = np.random.default_rng(seed)
    data = bytearray(survey.index.read_bytes())
    for _ in range(rng.integers(1, 20)):
        data[rng.integers(0, len(data))] = rng.integers(0, 256)
    survey.index.write_bytes(bytes(data))
    found, _ = survey.listed()
    assert found == GOOD


def test_an_index_that_may_not_be_read_is_told(survey, monkeypatch):
    survey.listed()
    opened = storage.open_binary

    def refuse(uri: str) -> object:
        if uri.endswith(INDEX_NAME):
            raise PermissionError(13, "Permission denied")
        return opened(uri)

    monkeypatch.setattr(storage, "open_binary", refuse)
    assert survey.listed() == (GOOD, 3)
    assert "Permission denied" in survey.lines[0]


def test_what_was_read_before_a_bad_frame_is_kept(survey, monkeypatch):
    monkeypatch.setattr(module, "HEADERS_PER_ROUND", 2)
    (survey.frames / "c-g-7.fits").write_bytes(b"SIMPLE  = cut")
    with pytest.raises(UsageError, match=r"c-g-7\.fits"):
        survey.listed()
    assert len(pq.read_table(survey.index)) == 2
    (survey.frames / "c-g-7.fits").unlink()
    assert survey.listed() == (GOOD, 1)


def test_a_single_frame_is_found_from_an_index_and_drops_no_others(survey):
    survey.listed()
    assert survey.listed(str(survey.frames / "a-g-7.fits"))[1] == 0
    assert survey.listed() == (GOOD, 0)


def test_without_a_folder_there_is_no_index(survey):
    for _ in range(2):
        assert survey.listed(index_folder=None) == (GOOD, 3)
    assert not survey.index.exists()


def test_an_index_in_an_object_store(survey):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe({f"/frames/{path.name}": path.read_bytes() for path in survey.frames.glob("*.fits")})
    try:
        kept = {"index_folder": "memory://frames"}
        assert survey.listed("memory://frames", **kept) == (GOOD, 3)
        assert memory.exists(f"/frames/{INDEX_NAME}")
        assert survey.listed("memory://frames", **kept) == (GOOD, 0)
    finally:
        memory.rm("/frames", recursive=True)


def test_real_frames_are_found_from_the_index(shared_data, tmp_path, messages):
    survey = write_table(tmp_path / "t.csv", {"ngc6976": (313.0982, -5.7722), "far": (10.0, 0.0)})
    found = []
    for _ in range(2):
        source = open_frames(
            str(shared_data / "frames"),
            survey,
            bands=BANDS,
            index_folder=str(tmp_path),
            keep_index=True,
        )
        found.append(listed(source))
    assert found[0].equals(found[1])
    assert found[0]["reason"].to_pylist() == ["off_frame", None]
    assert numbers(messages) == [["1", "1"]]
