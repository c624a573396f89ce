"""Hide what native libraries print, unless something fails."""

import os
import sys
import tempfile
import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO, cast


@contextmanager
def quiet_native_stderr() -> Iterator[None]:
    """Hold back what C++ code (TensorFlow, Ray) writes to file descriptor 2. Show it if the block raises.

    Python's own `sys.stderr` is not affected.
    """
    with tempfile.TemporaryFile() as held, _redirected(held.fileno()) as kept:
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise


@contextmanager
def native_stderr_in(log: Path) -> Iterator[None]:
    """Redirect what C++ code writes to file descriptor 2 to a file. Delete the file if it stays empty."""
    with log.open("ab") as file, _redirected(file.fileno()):
        try:
            yield
        finally:
            if not os.fstat(file.fileno()).st_size:
                log.unlink(missing_ok=True)


@contextmanager
def quiet_threads(threads: Container[threading.Thread]) -> Iterator[None]:
    """Discard what some threads print on `sys.stdout`. Other threads print as before.

    Args:
        threads: Threads of a library that prints and has no option to prevent it.
    """
    with redirect_stdout(cast(TextIO, _Stdout(sys.stdout, threads))):
        yield


class _Stdout:
    """A text stream to which some threads cannot write."""

    def __init__(self, stream: TextIO, quiet: Container[threading.Thread]) -> None:
        self._stream = stream
        self._quiet = quiet

    def write(self, text: str) -> int:
        return len(text) if threading.current_thread() in self._quiet else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _redirected(descriptor: int) -> Iterator[int]:
    """Redirect file descriptor 2 to another. Yield a descriptor of where it led before."""
    sys.stderr.flush()
    kept = os.dup(2)
    python_stderr = sys.stderr
    with os.fdopen(os.dup(kept), "w", buffering=1) as direct:
        os.dup2(descriptor, 2)
        if python_stderr is sys.__stderr__:
            sys.stderr = direct
        try:
            yield kept
        finally:
            sys.stderr = python_stderr
            os.dup2(kept, 2)
            os.close(kept)
