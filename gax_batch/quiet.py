"""Keeps what native libraries print on standard error away from the person, unless something fails."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def quiet_native_stderr() -> Iterator[None]:
    """Hold back what C++ code (TensorFlow, Ray) writes to file descriptor 2; show it if the block raises.

    Python's own `sys.stderr` goes on as before.
    """
    with tempfile.TemporaryFile() as held, _diverted(held.fileno()) as kept:
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise


@contextmanager
def native_stderr_in(log: Path) -> Iterator[None]:
    """Let what C++ code writes to file descriptor 2 go to a file; an empty one is removed."""
    with log.open("ab") as file, _diverted(file.fileno()):
        try:
            yield
        finally:
            if not os.fstat(file.fileno()).st_size:
                log.unlink(missing_ok=True)


@contextmanager
def _diverted(descriptor: int) -> Iterator[int]:
    """Make file descriptor 2 another's; yields one that goes where 2 went."""
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
