"""A simulated survey on disk: Parquet shards of cutouts with their positions and the truth.

Galaxies are drawn in blocks of 64, each with its own stream of random numbers. Galaxy k of a seed is
therefore the same in every survey, whatever its size, its shards and the number of processes. (On other
hardware or with other libraries a pixel may differ by one, because linear algebra rounds differently.)
"""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from gax_batch import gz2, storage
from gax_batch.errors import UsageError
from gax_batch.simulate.footprint import draw_positions
from gax_batch.simulate.light import SIDE
from gax_batch.simulate.population import Population, draw_population
from gax_batch.simulate.render import render
from gax_batch.simulate.voters import vote_fractions
from gax_batch.storage.listing import list_objects
from gax_batch.system.concurrency import map_processes
from gax_batch.system.cpus import logical_cpus

FORMAT_VERSION = 1
"""Version of the simulation. Increases with every change of the output of a seed."""

IMAGE_BYTES = SIDE * SIDE * 3
_BLOCK = 64  # galaxies; larger blocks do not fit the processor's caches, smaller ones cost more per call
_ROW_GROUP = 1024
_REUSED_BYTES = 24 * 1024 * 1024
_INTEGERS = ("kind", "n_arms")

STRUCTURE_COLUMNS: tuple[str, ...] = tuple(f.name for f in fields(Population))
TRUTH_COLUMNS: tuple[str, ...] = tuple(f"truth_{answer}" for answer in gz2.ANSWERS)

SCHEMA = pa.schema(
    [
        pa.field("galaxy_id", pa.string(), nullable=False),
        pa.field("ra", pa.float64(), nullable=False),
        pa.field("dec", pa.float64(), nullable=False),
        pa.field("image", pa.binary(IMAGE_BYTES), nullable=False),
        *(pa.field(name, pa.int8() if name in _INTEGERS else pa.float32()) for name in STRUCTURE_COLUMNS),
        pa.field("edge_on", pa.bool_()),
        *(pa.field(name, pa.float32()) for name in TRUTH_COLUMNS),
        pa.field("truth_class", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class SimulatedSurvey:
    """The result of `simulate_survey`.

    Attributes:
        uri: Folder or prefix of the shards.
        galaxies: Number of galaxies in the survey.
        shards: Number of shards in the survey.
        written: Number of shards that this call wrote. The others existed already.
        seconds: Duration of the call.
    """

    uri: str
    galaxies: int
    shards: int
    written: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _MockShard:
    """The galaxies `start:stop` of a seed, and the object that holds them."""

    uri: str
    seed: int
    start: int
    stop: int


def simulate_survey(
    output: str,
    galaxies: int,
    seed: int,
    *,
    shard_size: int = 4096,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SimulatedSurvey:
    """Simulate a survey into Parquet shards. Completes a survey of which some shards exist.

    Worker processes are spawned, so a script that calls this needs the usual
    `if __name__ == "__main__":` around it.

    Args:
        output: Folder or prefix, as a path or URI. It must be empty or contain shards of this simulation.
        galaxies: Number of galaxies. A longer survey begins with the same galaxies.
        seed: Any integer from 0.
        shard_size: Galaxies per shard. About 12 kB each are held in memory, several times over.
        processes: Number of worker processes; None for one per CPU.
        progress: Called after each shard with the number of finished galaxies and that of all galaxies.

    Returns:
        Counts of galaxies and shards.

    Raises:
        UsageError: An argument is out of range, or the output contains something else or cannot be written.
        FatalError: A worker process was terminated.
    """
    started = time.perf_counter()
    for name, value, least in (("galaxies", galaxies, 1), ("seed", seed, 0), ("shard size", shard_size, 1)):
        if value < least:
            raise UsageError(f"{name} is {value}; it must be at least {least}")
    workers = processes if processes is not None else logical_cpus()
    if workers < 1:
        raise UsageError(f"processes is {workers}; it must be at least 1")
    uri = storage.normalize_uri(output)
    shards = _shards(uri, galaxies, seed, shard_size)
    missing = _missing(uri, shards)
    done = galaxies - sum(shard.stop - shard.start for shard in missing)
    for count in map_processes(_write, missing, workers):
        done += count
        if progress is not None:
            progress(done, galaxies)
    return SimulatedSurvey(uri, galaxies, len(shards), len(missing), time.perf_counter() - started)


def _shards(uri: str, galaxies: int, seed: int, shard_size: int) -> list[_MockShard]:
    """Return the shards of a survey. Each name contains everything that its content depends on."""
    shards = []
    for start in range(0, galaxies, shard_size):
        stop = min(start + shard_size, galaxies)
        name = f"simulated-v{FORMAT_VERSION}-seed{seed}-{start:09d}-{stop:09d}.parquet"
        shards.append(_MockShard(storage.join(uri, name), seed, start, stop))
    return shards


def _missing(uri: str, shards: list[_MockShard]) -> list[_MockShard]:
    storage.check_writable(uri)
    present = {info.uri for info in list_objects(uri, missing_ok=True)}
    foreign = sorted(present - {shard.uri for shard in shards})
    if foreign:
        raise UsageError(
            f"{uri} already contains something else ({foreign[0]}); choose an empty folder, or repeat the "
            "number of galaxies, the seed and the shard size of the survey in it"
        )
    return [shard for shard in shards if shard.uri not in present]


def _write(shard: _MockShard) -> int:
    buffer = io.BytesIO()
    pq.write_table(
        simulate_table(shard.seed, shard.start, shard.stop),
        buffer,
        row_group_size=_ROW_GROUP,
        compression="zstd",
        compression_level=1,
        use_dictionary=["truth_class"],
        write_statistics=["galaxy_id", "ra", "dec"],
    )
    storage.write_bytes(shard.uri, buffer.getvalue())
    return shard.stop - shard.start


def simulate_table(seed: int, start: int, stop: int) -> pa.Table:
    """Simulate galaxies `start:stop` of a seed in this process.

    Args:
        seed: Any integer from 0.
        start: Number of the first galaxy.
        stop: Number of the last galaxy plus one.

    Returns:
        A table of `SCHEMA`.
    """
    _keep_freed_memory()
    # One thread: the matrices are tiny, and the processes use all cores.
    with threadpool_limits(limits=1, user_api="blas"):
        blocks = [
            _block(seed, block).slice(max(start - block * _BLOCK, 0), stop - max(start, block * _BLOCK))
            for block in range(start // _BLOCK, -(-stop // _BLOCK))
        ]
    return pa.Table.from_batches(blocks, SCHEMA)


def _keep_freed_memory() -> None:
    """Let the allocator reuse freed arrays. Without this, page faults take a quarter of the time.

    Freeing one large array raises glibc's dynamic thresholds (mallopt(3), M_MMAP_THRESHOLD) above the
    size of a block's arrays. Other allocators are not affected.
    """
    np.empty(_REUSED_BYTES, np.uint8)


def _block(seed: int, block: int) -> pa.RecordBatch:
    """Simulate a whole block from three streams of random numbers: structure, positions, images."""
    streams = np.random.SeedSequence(seed, spawn_key=(block,)).spawn(3)
    structure, position, picture = (np.random.Generator(np.random.PCG64DXSM(s)) for s in streams)
    galaxies = draw_population(structure, _BLOCK)
    ra, dec = draw_positions(position, _BLOCK)
    truth = vote_fractions(galaxies)
    columns = {
        "galaxy_id": [f"sim-{number:08d}" for number in range(block * _BLOCK, (block + 1) * _BLOCK)],
        "ra": ra,
        "dec": dec,
        "image": _binary(render(galaxies, picture)),
        **{name: getattr(galaxies, name) for name in STRUCTURE_COLUMNS},
        "edge_on": galaxies.edge_on,
        **dict(zip(TRUTH_COLUMNS, np.ascontiguousarray(truth.T), strict=True)),
        "truth_class": gz2.gz2_class(truth),
    }
    return pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in SCHEMA], schema=SCHEMA)


def _binary(images: npt.NDArray[np.uint8]) -> pa.Array:
    """Return images as a fixed-size binary column that shares their memory."""
    return pa.Array.from_buffers(pa.binary(IMAGE_BYTES), len(images), [None, pa.py_buffer(images)])
