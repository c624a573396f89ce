"""Waiting for what other processes and threads do, and finding servers."""

import random
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from urllib.error import HTTPError
from urllib.request import urlopen


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what} did not come within {seconds} s"
        time.sleep(0.05)


def free_port() -> str:
    """A port of loopback that nobody listens on, nor soon will by chance.

    A server may take seconds until it listens. Meanwhile the kernel gives away ports from 32768 on, and
    Ray its workers those below 20000.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return str(port)


def http_status(url: str) -> int | None:
    """What a server answers to a GET; None where none answers."""
    try:
        with urlopen(url, timeout=10) as reply:  # noqa: S310
            return int(reply.status)
    except HTTPError as refused:
        return refused.code
    except OSError:
        return None
