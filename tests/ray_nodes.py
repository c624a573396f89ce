"""Real Ray clusters on this machine, each node a process of its own, with token authentication."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def answers(port: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what} did not come within {seconds} s"
        time.sleep(0.05)


@contextmanager
def ray_node(
    environment: dict[str, str], *arguments: str, before: Sequence[str] = ()
) -> Iterator["subprocess.Popen[bytes]"]:
    """A node that is up: one after the other, since a node gives up that is not after half a minute."""
    command = [*before, BIN / "ray", "start", "--block", "--disable-usage-stats", *arguments]
    command += ["--object-store-memory", "150000000", "--dashboard-agent-listen-port", free_port()]
    with tempfile.NamedTemporaryFile("w+") as said:
        process = subprocess.Popen(command, env=environment | {"PYTHONUNBUFFERED": "1"}, stdout=said)
        try:
            wait_for(lambda: process.poll() is not None or _is_up(Path(said.name)), "a node of Ray's")
            assert process.poll() is None, f"ray start ended with {process.returncode}"
            yield process
        finally:
            kill_tree(process)


def _is_up(said: Path) -> bool:
    return "Ray runtime started" in said.read_text()


def kill_tree(process: "subprocess.Popen[bytes]") -> None:
    """End a node as one ends that is taken away: nothing is asked, nothing said."""
    if process.poll() is None:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for member in family:
            if member.is_running():
                member.kill()
        process.wait()
        psutil.wait_procs(family, timeout=30)


@contextmanager
def ray_cluster(*head: str, workers: int = 0) -> Iterator[tuple[str, dict[str, str]]]:
    """A head, workers of one core each; yields its address and the environment of who may use it."""
    gcs = free_port()
    address = f"127.0.0.1:{gcs}"
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment.pop("RAY_ADDRESS", None)
    with ExitStack() as nodes:
        # The paths of Ray's sockets must be short.
        folder = nodes.enter_context(tempfile.TemporaryDirectory(prefix="gax", ignore_cleanup_errors=True))
        ports = ["--port", gcs, "--ray-client-server-port", free_port(), "--temp-dir", folder]
        nodes.enter_context(ray_node(environment, "--head", *ports, *head))
        for _ in range(workers):
            nodes.enter_context(ray_node(environment, "--address", address, "--num-cpus", "1"))
        yield address, environment
