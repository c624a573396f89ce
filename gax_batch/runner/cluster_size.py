"""How large a cluster a survey needs: engines, memory, disks, hours and cost, from measured rates."""

import math
from dataclasses import dataclass

from gax_batch.imaging.limits import DEFAULT_UNIT_SIZE
from gax_batch.system.machine import DRIVER_BYTES, MIB, UNIT_BYTES, local_resources

CORE_RATE = 8.9 / 2
"""Cutouts a second of one core, reading to commit: a whole run on two cores (docs/benchmarks.md)."""

PLAN_BYTES = 250
"""Of the head's temporary folder for each cutout, while a run plans (docs/benchmarks.md)."""

PACKED_BYTES = 6_700
"""Of a packed cutout (docs/benchmarks.md)."""

# The driver's peak while it planned 12,000,000 cutouts (docs/benchmarks.md). Its units have no tasks yet.
_PLANNING_BYTES = 946 * MIB
# Cores that a node keeps for reading and writing beside its engine: as the overlays of deploy/ have them.
_READERS_OF_A_CPU, _READERS_OF_A_GPU = 2, 12
_GIB, _GB = 1 << 30, 10**9


@dataclass(frozen=True, slots=True)
class EngineNode:
    """A node of one engine: its cores, its GPUs, and the cutouts that it catalogs each second."""

    engine_cores: float
    gpus: float
    rate: float

    @property
    def cores(self) -> int:
        """Those of the engine, and some for reading and writing."""
        return math.ceil(self.engine_cores) + (_READERS_OF_A_GPU if self.gpus else _READERS_OF_A_CPU)


@dataclass(frozen=True, slots=True)
class Sizing:
    """What a survey needs of a cluster; bytes, seconds."""

    galaxies: int
    node: EngineNode
    engines: int
    seconds: float
    object_store: int
    driver: int
    head_disk: int

    @property
    def core_hours(self) -> float:
        """Of the engines' cores; the nodes' others, and the head, come on top."""
        return self.engines * self.node.engine_cores * self.seconds / 3600

    @property
    def gpu_hours(self) -> float:
        """Of the engines' GPUs."""
        return self.engines * self.node.gpus * self.seconds / 3600

    def cost(self, *, core_price: float = 0.0, gpu_price: float = 0.0) -> float:
        """In the currency of the prices, which are for an hour; a node is paid for with all its cores."""
        node_hours = self.engines * self.seconds / 3600
        return node_hours * (self.node.cores * core_price + self.node.gpus * gpu_price)


def cpu_node(engine_cores: float = 6, core_rate: float = CORE_RATE) -> EngineNode:
    """A node without a GPU, as if cores added up."""
    return EngineNode(engine_cores, 0, engine_cores * core_rate)


def gpu_node(engine_cores: float, gpus: float, *, infer_rate: float, read_rate: float) -> EngineNode:
    """A node whose engine was measured on such GPUs: it is as fast as the slower of reading and inference."""
    return EngineNode(engine_cores, gpus, min(infer_rate, _READERS_OF_A_GPU * read_rate))


def size(
    galaxies: int,
    node: EngineNode,
    *,
    hours: float,
    unit_size: int = DEFAULT_UNIT_SIZE,
    engines: int = 0,
) -> Sizing:
    """Size a cluster.

    Args:
        galaxies: Cutouts to process.
        node: What an engine runs on.
        hours: In which they are to be done.
        unit_size: Cutouts per unit; a unit is never shared by engines.
        engines: So many, however long they take; 0: as many as the hours ask for.
    """
    units = max(1, math.ceil(galaxies / unit_size))
    if not engines:
        engines = max(1, math.ceil(galaxies / node.rate / (hours * 3600)))
    engines = min(engines, units)
    resources = local_resources(
        cpus=node.cores, workers=1, object_store_mib="auto", unit_size=unit_size, address="cluster"
    )
    return Sizing(
        galaxies,
        node,
        engines,
        galaxies / node.rate / engines,
        resources.object_store_bytes,
        max(DRIVER_BYTES, _PLANNING_BYTES) + units * UNIT_BYTES,
        galaxies * PLAN_BYTES,
    )


def lines(sizing: Sizing, *, core_price: float | None, gpu_price: float | None, source: str) -> list[str]:
    """What `gax plan` says of a cluster."""
    node = sizing.node
    each = f"{node.engine_cores:g} cores" + (f" and {node.gpus:g} GPU" if node.gpus else "")
    engines = f"{sizing.engines:,} engine{'s' if sizing.engines > 1 else ''}"
    gpu_hours = f", {sizing.gpu_hours:,.1f} GPU hours" if node.gpus else ""
    store, driver, disk = sizing.object_store / _GIB, sizing.driver / _GIB, sizing.head_disk / _GB
    said = [
        f"on a cluster: {engines} of {each} (--workers {sizing.engines}), {sizing.seconds / 3600:,.1f} h, "
        f"{sizing.core_hours:,.0f} core hours{gpu_hours} ({source})",
        f"  a node: {node.cores} cores, {store:,.1f} GiB object store, as much for spill",
        f"  the head: {disk:,.2f} GB of TMPDIR, {driver:,.1f} GiB for the driver",
    ]
    if core_price is not None or gpu_price is not None:
        cost = sizing.cost(core_price=core_price or 0.0, gpu_price=gpu_price or 0.0)
        said.append(
            f"  cost of the nodes: {cost:,.2f}, without head and storage, in the currency of your prices"
        )
    return said


def table(hours: float = 20.0) -> list[str]:
    """The table of docs/guides/kubernetes.md: four surveys on nodes without a GPU, in Markdown."""
    rows = [
        f"| galaxies | core hours | engines of 6 cores, for {hours:g} h | hours "
        "| each node: object store, and its overflow on disk | head's `/tmp` | memory of the driver "
        "| packed input |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for exponent in (6, 7, 8, 9):
        need = size(10**exponent, cpu_node(), hours=hours)
        rows.append(
            f"| 1e{exponent} | {need.core_hours:,.0f} | {need.engines:,} | {need.seconds / 3600:.1f} "
            f"| {need.object_store / _GIB:.1f} GiB | {need.head_disk / _GB:,.2f} GB "
            f"| {need.driver / _GIB:.1f} GiB | {need.galaxies * PACKED_BYTES / _GB:,.1f} GB |"
        )
    return rows
