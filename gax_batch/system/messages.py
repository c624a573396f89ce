"""The log messages of the package. Without a command, they follow the user's configuration of `logging`."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PACKAGE = logging.getLogger("gax_batch")


class _Writer(logging.Handler):
    """Passes the text of each message to a function, whose errors are raised where the message is logged."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        self._write(record.getMessage())


@contextmanager
def redirect_messages(write: Callable[[str], None]) -> Iterator[None]:
    """Pass the messages of the package to a function while the block runs, and to no other handler.

    Args:
        write: Function that is called with each message of level INFO or above, in the thread that logs it.
            One thread at a time calls it.
    """
    handlers, level, propagate = _PACKAGE.handlers, _PACKAGE.level, _PACKAGE.propagate
    # Ray, TensorFlow and absl may add handlers to the root logger.
    _PACKAGE.handlers, _PACKAGE.propagate = [_Writer(write)], False
    _PACKAGE.setLevel(logging.INFO)
    try:
        yield
    finally:
        _PACKAGE.handlers, _PACKAGE.propagate = handlers, propagate
        _PACKAGE.setLevel(level)
