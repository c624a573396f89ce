"""WebDataset tar shards."""

import json
import os
import tarfile

import numpy as np
import pytest
from archives import write_tar
from bad_images import encoded, galaxy
from listings import listed

from gax_batch.errors import UsageError
from gax_batch.imaging.cutout import ImageLimits
from gax_batch.imaging.decoding import Decoder
from gax_batch.sources import open_source, read_unit
from gax_batch.sources import tars as module

RAW = [galaxy(64), galaxy(64)[::-1], galaxy(64)[:, ::-1]]
IMAGES = [encoded(raw) for raw in RAW]


def sample(key: str, number: int, ra: float | None = None, suffix: str = ".png") -> list[tuple[str, bytes]]:
    return [
        (f"{key}{suffix}", IMAGES[number]),
        (f"{key}.json", json.dumps({"ra": ra, "dec": None if ra is None else -ra / 10, "label": 3}).encode()),
    ]


def test_samples_are_galaxies_with_their_positions(tmp_path):
    write_tar(
        tmp_path / "b.tar",
        *sample("x/0001", 0, 15.5),
        ("x/0002.json", b'{"ra": 20, "dec": 1}'),
        ("x/0002.v2.png", IMAGES[1]),
        ("x/0003.png", IMAGES[2]),
        ("x/0003.txt", b"no image"),
    )
    write_tar(tmp_path / "a.tar", *sample("0000", 2))
    members = listed(open_source(str(tmp_path)))
    assert members["galaxy_id"].to_pylist() == ["0000", "0001", "0002", "0003"]
    assert members["ra"].to_pylist() == [None, 15.5, 20.0, None]
    assert members["dec"].to_pylist() == [None, -1.55, 1.0, None]
    cutouts = read_unit(members, Decoder())
    got = [np.frombuffer(c, np.uint8).reshape(64, 64, 3) for c in cutouts["cutout"].to_pylist()]
    for cutout, number in zip(got, (2, 0, 1, 2), strict=True):
        np.testing.assert_array_equal(cutout, RAW[number])


def test_facts_may_come_before_or_after_their_image(tmp_path):
    first, second = sample("a", 0, 1.0), sample("b", 1, 2.0)
    write_tar(tmp_path / "t.tar", *first[::-1], *second, *sample("c", 2, 3.0)[::-1], ("d.png", IMAGES[0]))
    members = listed(open_source(str(tmp_path / "t.tar")))
    assert members["ra"].to_pylist() == [1.0, 2.0, 3.0, None]


def test_names_are_text_and_never_paths(tmp_path):
    names = ["../../etc/passwd.png", "/abs.png", "a\nb.png", ".png", "\udce9.png"]
    write_tar(tmp_path / "t.tar", *((name, IMAGES[0]) for name in names))
    members = listed(open_source(str(tmp_path / "t.tar")))
    found = dict(zip(members["galaxy_id"].to_pylist(), members["reason"].to_pylist(), strict=True))
    assert found == {"passwd": None, "abs": None, "a\nb": "bad_id", "": "bad_id", r"\xe9": None}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.tar"]


def test_links_folders_and_devices_are_passed_over(tmp_path):
    path = write_tar(tmp_path / "t.tar", *sample("a", 0))
    with tarfile.open(path, "a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo("b.png")
            info.type, info.linkname = kind, "a.png"
            tar.addfile(info)
    assert listed(open_source(str(path)))["galaxy_id"].to_pylist() == ["a"]


def test_the_same_id_twice_is_one_galaxy_and_one_reject(tmp_path):
    write_tar(tmp_path / "t.tar", *sample("a", 0), *sample("a", 1))
    assert listed(open_source(str(tmp_path / "t.tar")))["reason"].to_pylist() == [None, "duplicate_id"]


@pytest.mark.parametrize("cut", ["in an image", "in a header"])
def test_a_tar_that_was_cut_keeps_what_is_whole(tmp_path, cut):
    path = write_tar(tmp_path / "t.tar", *(("abc"[i] + ".png", IMAGES[i]) for i in range(3)))
    with tarfile.open(path) as tar:
        last = tar.getmembers()[2]
    path.write_bytes(
        path.read_bytes()[: last.offset_data + 20 if cut == "in an image" else last.offset + 100]
    )
    cutouts = read_unit(listed(open_source(str(path))), Decoder())
    expected = [None, None, "truncated"] if cut == "in an image" else [None, None]
    assert cutouts["reason"].to_pylist() == expected


def test_a_tar_that_was_cut_in_a_map_of_holes_keeps_what_is_whole(tmp_path):
    path = write_tar(tmp_path / "t.tar", ("a.png", IMAGES[0]))
    with tarfile.open(path) as tar:
        end = tar.getmembers()[0].offset_data + 512 * -(-len(IMAGES[0]) // 512)
    holes = tarfile.TarInfo("holes")
    holes.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(holes.tobuf(tarfile.GNU_FORMAT))
    header[482] = 1  # the map goes on in a block of its own
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    for rest in (b"", b"1" * 30):
        path.write_bytes(path.read_bytes()[:end] + header + rest)
        assert read_unit(listed(open_source(str(path))), Decoder())["reason"].to_pylist() == [None]


def test_bad_images_in_a_tar_are_rejects(tmp_path):
    write_tar(
        tmp_path / "t.tar",
        ("a.png", b""),
        ("b.png", b"text"),
        ("c.png", IMAGES[0]),
        ("d.jpg", IMAGES[1][:60]),
    )
    members = listed(open_source(str(tmp_path / "t.tar")))
    reasons = read_unit(members, Decoder())["reason"].to_pylist()
    assert reasons == ["empty_file", "not_an_image", None, "truncated"]
    small = Decoder(limits=ImageLimits(bytes=50))
    assert read_unit(members, small)["reason"].to_pylist()[2:] == ["too_many_bytes"] * 2


def test_a_tar_that_went_or_changed_after_the_listing(tmp_path):
    for name in ("a", "b"):
        write_tar(tmp_path / f"{name}.tar", *sample(name, 0))
    members = listed(open_source(str(tmp_path)))
    (tmp_path / "a.tar").unlink()
    os.utime(tmp_path / "b.tar", ns=(1, 1))
    assert read_unit(members, Decoder())["reason"].to_pylist() == ["missing", "changed"]


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100, bytes(100)])
def test_what_is_no_tar_is_refused_on_one_line(tmp_path, content):
    (tmp_path / "t.tar").write_bytes(content)
    with pytest.raises(UsageError, match=r"t\.tar") as caught:
        listed(open_source(str(tmp_path / "t.tar")))
    assert "\n" not in str(caught.value)


def test_an_empty_tar_has_no_galaxies(tmp_path):
    write_tar(tmp_path / "t.tar")
    assert len(listed(open_source(str(tmp_path / "t.tar")))) == 0


def test_facts_that_are_no_positions_are_none(tmp_path):
    bad = [b"[1]", b"{", b'{"ra": "1h", "dec": true}', b"[" * 60_000, b" " * 70_000]
    entries = [pair for i, text in enumerate(bad) for pair in ((f"{i}.png", IMAGES[0]), (f"{i}.json", text))]
    members = listed(open_source(str(write_tar(tmp_path / "t.tar", *entries))))
    assert members["ra"].null_count == members["dec"].null_count == members["reason"].null_count == len(bad)


def test_batches_make_no_difference(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "t.tar", *(entry for i in range(7) for entry in sample(f"{i}", i % 3, i)))
    whole = listed(open_source(str(path)))
    monkeypatch.setattr(module, "_BATCH_MEMBERS", 2)
    assert listed(open_source(str(path))).equals(whole)
    assert listed(open_source(str(path), limit=3)).equals(whole.slice(0, 3))
