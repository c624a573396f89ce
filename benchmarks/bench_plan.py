"""`gax plan` of a million objects in a bucket: seconds and memory of the whole process."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

from s3.servers import environment, script

from benchmarks.listing import PREFIX
from benchmarks.suite import Lab, Row, Sample, Target

OBJECTS = 1_000_000
GAX = [sys.executable, "-c", "from gax_batch.cli import main; main()"]


def plan(catalog: str, count: int) -> tuple[float, float]:
    """Plan. Return the wall-clock seconds and the peak memory of the process in MiB."""
    place = f"s3://many/{PREFIX.rstrip('/')}"
    command = [*GAX, "plan", "--input", place, "--catalog", catalog, "--no-calibrate"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, printed
    assert f"{count:,}" in printed, printed
    return seconds, usage.ru_maxrss / 1024


def run(lab: Lab) -> Iterator[Row]:
    count = lab.count(OBJECTS)
    with script("benchmarks/listing.py", str(count)) as endpoint, environment(endpoint):
        runs = [plan(str(lab.folder / "catalog"), count) for _ in range(lab.few_turns)]
    seconds, memory = (Sample(values) for values in zip(*runs, strict=True))
    what = f"listing and planning {count:,} objects of a bucket"
    yield Row(what, "s", seconds, target=Target(60, at_most=True))
    yield Row("peak memory of it", "MiB", memory, target=Target(1024, at_most=True))
