"""Keeps what native libraries print on standard error away from the person, unless something fails."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_native_stderr() -> Iterator[None]:
    """Hold back what C++ code (TensorFlow, Ray) writes to file descriptor 2; show it if the block raises.

    Python's own `sys.stderr` goes on as before.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    python_stderr = sys.stderr
    with tempfile.TemporaryFile() as held, os.fdopen(os.dup(kept), "w", buffering=1) as direct:
        os.dup2(held.fileno(), 2)
        if python_stderr is sys.__stderr__:
            sys.stderr = direct
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            sys.stderr = python_stderr
            os.dup2(kept, 2)
            os.close(kept)
