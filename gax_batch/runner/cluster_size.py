"""Estimate the cluster that a survey needs: engines, memory, disks, hours and cost, from measured rates."""

import math
from dataclasses import dataclass

from gax_batch.imaging.limits import DEFAULT_UNIT_SIZE
from gax_batch.system.machine import DRIVER_BYTES, MIB, UNIT_BYTES, local_resources

CORE_RATE = 8.9 / 2
"""Cutouts that one core catalogs per second: the slowest CPU that was measured (docs/benchmarks.md)."""

PLAN_BYTES = 250
"""Bytes per cutout in the temporary folder of the head, while a run is planned (docs/benchmarks.md)."""

PACKED_BYTES = 6_700
"""Bytes of a packed cutout (docs/benchmarks.md)."""

# Peak memory of the driver while it planned 12,000,000 cutouts (docs/benchmarks.md). Tasks of units, which
# are created later, are not included.
_PLANNING_BYTES = 946 * MIB
# Cores of a node for reading and writing, in addition to its engine. The overlays of deploy/ use the same.
_READERS_OF_A_CPU, _READERS_OF_A_GPU = 2, 12
_GIB, _GB = 1 << 30, 10**9


@dataclass(frozen=True, slots=True)
class EngineNode:
    """A node with one engine.

    Attributes:
        engine_cores: Cores of the engine.
        gpus: GPUs of the engine.
        rate: Cutouts that the node catalogs per second.
    """

    engine_cores: float
    gpus: float
    rate: float

    @property
    def cores(self) -> int:
        """Cores of the engine plus those for reading and writing."""
        return math.ceil(self.engine_cores) + (_READERS_OF_A_GPU if self.gpus else _READERS_OF_A_CPU)


@dataclass(frozen=True, slots=True)
class Sizing:
    """Resources of a cluster that a survey needs.

    Attributes:
        galaxies: Cutouts to process.
        node: Type of the nodes.
        engines: Number of nodes, with one engine each.
        seconds: Duration of the run.
        object_store: Object store of each node, bytes.
        driver: Memory of the driver, bytes.
        head_disk: Temporary folder of the head, bytes.
    """

    galaxies: int
    node: EngineNode
    engines: int
    seconds: float
    object_store: int
    driver: int
    head_disk: int

    @property
    def core_hours(self) -> float:
        """Core hours of the engines, without the other cores of the nodes and without the head."""
        return self.engines * self.node.engine_cores * self.seconds / 3600

    @property
    def gpu_hours(self) -> float:
        """GPU hours of the engines."""
        return self.engines * self.node.gpus * self.seconds / 3600

    def cost(self, *, core_price: float = 0.0, gpu_price: float = 0.0) -> float:
        """Return the cost of the nodes, with all their cores, in the currency of the prices.

        Args:
            core_price: Price of one core-hour.
            gpu_price: Price of one GPU-hour.
        """
        node_hours = self.engines * self.seconds / 3600
        return node_hours * (self.node.cores * core_price + self.node.gpus * gpu_price)


def cpu_node(engine_cores: float = 6, core_rate: float = CORE_RATE) -> EngineNode:
    """Return a node without a GPU, whose rate is assumed to be proportional to its cores."""
    return EngineNode(engine_cores, 0, engine_cores * core_rate)


def gpu_node(engine_cores: float, gpus: float, *, infer_rate: float, read_rate: float) -> EngineNode:
    """Return a node with GPUs, which is as fast as the slower of reading and inference.

    Args:
        engine_cores: Cores of the engine.
        gpus: GPUs of the engine.
        infer_rate: Cutouts that the engine classifies per second, measured on the same GPUs.
        read_rate: Cutouts that one core reads per second.
    """
    return EngineNode(engine_cores, gpus, min(infer_rate, _READERS_OF_A_GPU * read_rate))


def size(
    galaxies: int,
    node: EngineNode,
    *,
    hours: float,
    unit_size: int = DEFAULT_UNIT_SIZE,
    engines: int = 0,
) -> Sizing:
    """Estimate the resources of a cluster that processes a survey.

    Args:
        galaxies: Cutouts to process.
        node: Type of the nodes, with one engine each.
        hours: Time in which the survey is to be processed.
        unit_size: Cutouts per unit. One engine processes a whole unit.
        engines: Number of engines; 0 derives it from `hours`.
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
    """Return the lines of `gax plan` about a cluster.

    Args:
        sizing: Resources of the cluster.
        core_price: Price of one core-hour, or None.
        gpu_price: Price of one GPU-hour, or None.
        source: Origin of the rates, for the reader.
    """
    node = sizing.node
    each = f"{node.engine_cores:g} cores" + (f" and {node.gpus:g} GPU" if node.gpus else "")
    engines = f"{sizing.engines:,} engine{'s' if sizing.engines > 1 else ''}"
    gpu_hours = f", {sizing.gpu_hours:,.1f} GPU hours" if node.gpus else ""
    store, driver, disk = sizing.object_store / _GIB, sizing.driver / _GIB, sizing.head_disk / _GB
    shown = [
        f"on a cluster: {engines} of {each} (--workers {sizing.engines}), {sizing.seconds / 3600:,.1f} h, "
        f"{sizing.core_hours:,.0f} core hours{gpu_hours} ({source})",
        f"  a node: {node.cores} cores, {store:,.1f} GiB object store, as much for spill",
        f"  the head: {disk:,.2f} GB of TMPDIR, {driver:,.1f} GiB for the driver",
    ]
    if core_price is not None or gpu_price is not None:
        cost = sizing.cost(core_price=core_price or 0.0, gpu_price=gpu_price or 0.0)
        shown.append(
            f"  cost of the nodes: {cost:,.2f}, without head and storage, in the currency of your prices"
        )
    return shown


def table(hours: float = 20.0) -> list[str]:
    """Return the table of docs/guides/kubernetes.md: four surveys on nodes without a GPU, in Markdown."""
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
