"""Real Ray clusters on this machine, each node a process of its own, with token authentication."""

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from waiting import free_port, wait_for

from gax_batch.errors import UsageError

BIN = Path(sys.executable).parent


@contextmanager
def ray_node(
    environment: dict[str, str], *arguments: str, before: Sequence[str] = ()
) -> Iterator["subprocess.Popen[bytes]"]:
    """A node that is up: one after the other, since a node gives up that is not after half a minute."""
    command = [*before, BIN / "ray", "start", "--block", "--disable-usage-stats", *arguments]
    command += ["--object-store-memory", "150000000", "--dashboard-agent-listen-port", free_port()]
    with tempfile.NamedTemporaryFile() as said:
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


def with_a_token() -> dict[str, str]:
    """The environment of this process, and the token of a cluster that asks for one."""
    # The address of another cluster would make `ray start` refuse to start a head.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return environment | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextmanager
def ray_head(
    environment: dict[str, str], *arguments: str, ip: str = "127.0.0.1"
) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """A head that is up, and its address."""
    port = free_port()
    # The paths of Ray's sockets must be short.
    with tempfile.TemporaryDirectory(prefix="gax", ignore_cleanup_errors=True) as folder:
        where = ["--port", port, "--ray-client-server-port", free_port(), "--temp-dir", folder]
        with ray_node(environment, "--head", *where, *arguments) as process:
            yield process, f"{ip}:{port}"


@contextmanager
def ray_cluster(*head: str, workers: int = 0) -> Iterator[tuple[str, dict[str, str]]]:
    """A head, workers of one core each; yields its address and the environment of who may use it."""
    environment = with_a_token()
    with ExitStack() as nodes:
        _, address = nodes.enter_context(ray_head(environment, *head))
        for _ in range(workers):
            nodes.enter_context(ray_node(environment, "--address", address, "--num-cpus", "1"))
        yield address, environment


def halve(number: int) -> int:
    """A task for Ray's workers, which import it by name; it refuses odd numbers."""
    if number % 2:
        raise UsageError(f"{number} is odd")
    return number // 2
