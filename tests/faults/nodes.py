"""Clusters for faults: nodes that come and go, here or on hosts that a cable can be pulled from."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from ray_nodes import ray_head, ray_node, with_a_token

NETWORK = "10.213.77"

Node = subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Host:
    """A network namespace: as another machine."""

    name: str
    ip: str

    def pull_cable(self) -> None:
        """Cut it off."""
        _ip("link", "set", f"v{self.name}", "down")


@contextmanager
def hosts(count: int) -> Iterator[tuple[str, list[Host]]]:
    """This machine's address among them, and so many hosts.

    Raises:
        OSError: The machine allows no network namespaces.
    """
    bridge = f"gax{os.getpid()}"
    there = [Host(f"{bridge}-{number}", f"{NETWORK}.{number + 2}") for number in range(count)]
    with ExitStack() as stack:
        _ip("link", "add", bridge, "type", "bridge")
        stack.callback(_ip, "link", "delete", bridge)
        _ip("address", "add", f"{NETWORK}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for host in there:
            _ip("netns", "add", host.name)
            stack.callback(_ip, "netns", "delete", host.name)
            _ip("link", "add", f"v{host.name}", "type", "veth", "peer", "name", "eth0", "netns", host.name)
            _ip("link", "set", f"v{host.name}", "master", bridge, "up")
            _ip("-n", host.name, "address", "add", f"{host.ip}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", host.name, "link", "set", device, "up")
        yield f"{NETWORK}.1", there


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@dataclass(slots=True)
class Cluster:
    """A running cluster; `environment` is that of who may use it."""

    environment: dict[str, str]
    head: Node
    _nodes: ExitStack
    workers: list[Node] = field(default_factory=list)

    def add_worker(self, host: Host | None = None) -> None:
        """Start a node of one core that joins; on this machine, or on a host of its own."""
        arguments = ["--address", self.environment["RAY_ADDRESS"], "--num-cpus", "1"]
        before: tuple[str, ...] = ()
        if host is not None:
            arguments += ["--node-ip-address", host.ip]
            before = ("ip", "netns", "exec", host.name)
        self.workers.append(self._nodes.enter_context(ray_node(self.environment, *arguments, before=before)))


@contextmanager
def cluster(workers: int, extra: Mapping[str, str] | None = None, ip: str = "127.0.0.1") -> Iterator[Cluster]:
    """A head without work and workers of one core each, all with a token."""
    environment = with_a_token() | dict(extra or {})
    where = ["--include-dashboard", "false", "--node-ip-address", ip, "--num-cpus", "0"]
    with ExitStack() as nodes:
        head, address = nodes.enter_context(ray_head(environment, *where, ip=ip))
        made = Cluster(environment | {"RAY_ADDRESS": address}, head, nodes)
        for _ in range(workers):
            made.add_worker()
        yield made
