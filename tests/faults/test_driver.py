"""The driver that dies or is told to go, the clock that jumps, the disk that is full or slow."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.survey import Survey, parts
from galaxy_images import jpeg_bytes, write_images
from slow.night import KILLS
from waiting import wait_for

pytestmark = pytest.mark.slow

ROUNDS = 4
GRACE_SECONDS = 30
CLOCKS = ("-400d", "+400d", "-1d", "+1d", "-1h", "+1h")
# Bytes of a disk that lets a run come a little further each time.
BLOCK_GROUPS = Path("/sys/fs/cgroup/blkio")
SLOW_BYTES = 100_000
DISKS = tuple(range(40_960, 600_000, 61_440))


def grow(survey: Survey, night: int) -> None:
    """What every night has: new galaxies, one that changed, and one that is broken."""
    image = survey.folder / "images" / f"{800 + night:06d}.jpg"
    image.write_bytes(jpeg_bytes(night)[:300])
    survey.add(range(20 + 10 * night, 30 + 10 * night))
    write_images(survey.folder / "other", 1, first=900 + night)
    shutil.copy(survey.folder / "other" / f"{900 + night:06d}.jpg", survey.folder / "images" / "000001.jpg")


@pytest.mark.parametrize("kill", KILLS)
def test_the_driver_is_killed_at_every_stage(make_survey, kill):
    survey = make_survey(20)
    survey.succeed(ray=False)
    ray = kill.startswith("while")
    since, killed = 0.0, 0
    for night in range(1 if ray else ROUNDS):
        grow(survey, night)
        before = survey.rows()
        done = survey.run(ray=ray, kill=kill, seconds=0.3)
        assert done.returncode == -signal.SIGKILL, done.stderr
        since, killed = time.time(), killed + 1
        decided = kill in ("after the galaxies are committed", "before the record is written")
        # All of the night or nothing of it.
        assert len(survey.rows()) == len(before) + 10 if decided else survey.rows().equals(before)
        survey.succeed(ray=False)
    survey.balance(f"SIGKILL of the driver {kill}", killed, since)


@pytest.mark.parametrize("signals", [1, 2], ids=["once", "twice"])
def test_sigterm_keeps_what_is_finished_and_gives_back_the_rest(make_survey, signals):
    survey = make_survey(100)
    since, sent = 0.0, 0
    for stored in (1, 6):
        process = survey.start(seconds=1.0, settings={"grace": GRACE_SECONDS})
        wait_for(lambda stored=stored: parts(survey.catalog) >= stored, "the parts")
        since = time.time()
        for _ in range(signals):
            process.send_signal(signal.SIGTERM)
            sent += 1
            time.sleep(0.2)
        said, errors = process.communicate(timeout=GRACE_SECONDS * 4)
        assert process.returncode == 128 + signal.SIGTERM, errors
        assert parts(survey.catalog) >= stored, said
        records = [json.loads(path.read_text()) for path in (survey.folder / "catalog").rglob("run.json")]
        assert {record["status"] for record in records} == {"interrupted"}
        assert all("SIGTERM" in record["cause"] for record in records)
    kept = parts(survey.catalog)
    assert kept < 20
    assert re.search(rf"\b{kept} \w+ 20\b", survey.succeed(ray=False))
    survey.balance(f"SIGTERM of the driver{', twice' if signals > 1 else ''}", sent, since)


def test_the_clock_jumps(make_survey):
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed (Debian's package of that name)")
    survey = make_survey(20)
    since = 0.0
    for night, offset in enumerate(CLOCKS):
        grow(survey, night)
        since = time.time()
        done = survey.run(ray=False, before=("faketime", "-m", "-f", offset))
        assert done.returncode == 0, done.stderr
    survey.balance("clock that is wrong by a year, a day, an hour", len(CLOCKS), since)


def test_the_clock_jumps_within_a_run(make_survey, tmp_path):
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        pytest.skip("libfaketime is not installed (Debian's package faketime)")
    survey = make_survey(60)
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    process = survey.start(ray=False, seconds=0.4, environment=environment)
    since = time.time()
    for count, offset in enumerate(("-86400", "+86400", "-3600", "+40000000", "+0"), start=1):
        wait_for(lambda count=count: parts(survey.catalog) >= 2 * count, "the parts")
        clock.write_text(offset)
    said, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert re.search(r"\b60\b.*\b60\b", said)
    survey.balance("clock that jumps within a run", 5, since)


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of its own, of 64 KiB at first; `resize` makes it another."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", place]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def test_the_disk_of_the_catalog_is_full(make_survey, disk):
    survey = make_survey(30, catalog=str(disk / "catalog"))
    failed, since = 0, time.time()
    for size in DISKS:
        resize(disk, size)
        done = survey.run(ray=False)
        if done.returncode == 0:
            break
        failed, since = failed + 1, time.time()
        assert done.returncode in (3, 4), (size, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, done.stderr
        assert "No space left" in done.stderr + done.stdout, (size, done.stdout, done.stderr)
    resize(disk, 100 << 20)
    survey.succeed(ray=False)
    survey.balance("full disk of the catalog", failed, since)


@pytest.fixture
def slow_disk(tmp_path) -> Iterator[Path]:
    """A control group whose processes write `SLOW_BYTES` a second to the disk of this test."""
    group = BLOCK_GROUPS / f"gax-faults-{os.getpid()}"
    device = tmp_path.stat().st_dev
    try:
        group.mkdir()
        limit = f"{os.major(device)}:{os.minor(device)} {SLOW_BYTES}"
        (group / "blkio.throttle.write_bps_device").write_text(limit)
    except OSError as error:
        pytest.skip(f"no disk can be slowed down here: {error}")
    yield group
    group.rmdir()


def test_the_disk_is_slow(make_survey, slow_disk):
    survey = make_survey(60)
    process = survey.start(ray=False)
    (slow_disk / "cgroup.procs").write_text(str(process.pid))
    since = time.time()
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 0, errors
    stored = sum(path.stat().st_size for path in Path(survey.catalog).rglob("*.parquet"))
    assert time.time() - since >= 0.5 * stored / SLOW_BYTES
    survey.balance("slow disk of 100 kB/s, writes", parts(survey.catalog), since)
