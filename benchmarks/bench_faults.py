"""Catalog to and from a bucket that refuses, drops or cuts one request in six: slowdown and losses."""

from collections.abc import Iterator
from pathlib import Path

from catalogs import catalog_without_ray
from s3 import ceph
from s3.faults import Rates
from s3.servers import environment, make_bucket, proxied

from benchmarks.galaxies import write_jpegs
from benchmarks.suite import Lab, Row, SkippedError, Target, in_turns
from gax_batch.sources import open_source

COUNT = 3000
UNIT_SIZE = 512
NO_FAULTS = Rates(0.0, 0.0, 0.0)
SLOWER = Target(2.5, at_most=True, of_ratio=True)


class Survey:
    """A bucket of loose JPEGs with several endpoints, cataloged repeatedly without Ray or models."""

    def __init__(self, bucket: str, folder: Path, count: int) -> None:
        self._bucket, self._folder, self._count = bucket, folder, count
        self._runs = 0

    def catalog(self, endpoint: str) -> None:
        """List, plan, read, write and commit it to a new catalog, with each galaxy exactly once."""
        self._runs += 1
        folder = self._folder / f"run-{self._runs}"
        folder.mkdir()
        with environment(endpoint):
            source = open_source(f"{self._bucket}/loose")
            catalog = f"{self._bucket}/catalogs/{self._runs}"
            found = catalog_without_ray(source, catalog, folder, unit_size=UNIT_SIZE)
            ids = found.galaxies()["galaxy_id"].to_pylist()
        assert len(ids) == len(set(ids)) == self._count, f"{len(set(ids))} of {self._count} galaxies"


def run(lab: Lab) -> Iterator[Row]:
    if missing := ceph.missing_programs():
        raise SkippedError(f"Ceph's {', '.join(missing)} not installed (`make s3-server`)")
    count = lab.count(COUNT)
    with (
        ceph.running(lab.folder / "ceph") as direct,
        proxied(direct, NO_FAULTS) as passing,
        proxied(direct) as failing,
    ):
        with environment(direct):
            bucket = make_bucket("benchmarks")
            write_jpegs(f"{bucket}/loose", count)
        survey = Survey(bucket, lab.folder, count)
        doors = {"direct": direct, "passing": passing, "failing": failing}
        works = {name: lambda endpoint=endpoint: survey.catalog(endpoint) for name, endpoint in doors.items()}
        seconds = in_turns(works, turns=lab.few_turns)
    what = f"{count:,} JPEGs cataloged through the fault proxy, each once"
    yield Row(what, "s", seconds["failing"], "the proxy without faults", seconds["passing"], SLOWER)
    yield Row(what, "s", seconds["failing"], "the server itself", seconds["direct"])
