"""One run in a process of its own to which faults happen: `victim.py JSON`.

The JSON has `settings` (of the run), `seconds` (of the stand-in engine for each call), `kill` (a step of
`slow.night.KILLS` at which this process ends, or null), `ray` (false: one unit after the other, here) and
`ballast` (large objects that fill Ray's object store before the run).
"""

import json
import sys
from contextlib import nullcontext
from functools import partial

from faults import saboteur
from slow import night

from gax_batch import cli
from gax_batch.cluster import pipeline
from gax_batch.runner import run as run_module


def main() -> None:
    """Run as `gax run` does, with its exit code."""
    told = json.loads(sys.argv[1])
    log = saboteur.folder() / "engine.log"
    run_module.load_engine = partial(saboteur.mortal_engine, log=str(log), seconds=told.get("seconds", 0.0))
    if told.get("ray", True):
        pipeline.read_block, pipeline.write_block = saboteur.read_block, saboteur.write_block
        pipeline.SingleUnitActor = saboteur.SingleUnitActor
    else:
        pipeline.execute = night.one_by_one
        pipeline.ray_session = lambda resources: nullcontext("")
    if told.get("ballast"):
        pipeline.execute = saboteur.with_full_store(pipeline.execute, told["ballast"])
    night.prepare(told.get("kill"), told["settings"]["catalog"], log)
    flags = [
        word
        for name, value in told["settings"].items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    sys.argv = ["gax", "run", *flags]
    cli.main()


if __name__ == "__main__":
    main()
