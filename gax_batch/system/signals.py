"""How a process is told to stop: SIGINT (Ctrl-C) and SIGTERM, the first, the second, the end of a grace.

Handlers only take note or raise: the interrupted code may be in the midst of whatever they might call.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from gax_batch.errors import FatalError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(BaseException):
    """A signal ended this process's work; no `except Exception` may take it for an error."""

    def __init__(self, number: int) -> None:
        super().__init__(f"told to stop by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell says of a process that the signal ended: 130 or 143."""
        return 128 + self.number


class _GivenUpError(BaseException):
    """Carries the cause through code that handles exceptions, until `drain_on_signal` ends."""


class StopRequest:
    """What the first signal asked for: to finish what is in flight."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.cause: str | None = None
        """Why the block is given up."""

    def end(self) -> None:
        """Raise `StoppedError` in the main thread, from any thread: nothing is in flight any more."""
        if self.number is not None:
            signal.setitimer(signal.ITIMER_REAL, 1e-3)

    def give_up(self, cause: str) -> None:
        """Raise `FatalError` from the block, from any thread; only where signals can be handled."""
        if self.cause is None:
            self.cause = cause
            # Without a handler, the timer's signal would end the process.
            if callable(signal.getsignal(signal.SIGALRM)):
                signal.setitimer(signal.ITIMER_REAL, 1e-3)


@contextmanager
def cancel_on_signal() -> Iterator[None]:
    """Within the block, a signal raises `StoppedError`."""
    with _handled(SIGNALS, _stop):
        yield


@contextmanager
def drain_on_signal(grace_seconds: float) -> Iterator[StopRequest]:
    """Within the block, the first signal is taken note of; a second, or the end of the grace, raises.

    Args:
        grace_seconds: From the first signal; more than 0.

    Raises:
        StoppedError: A second signal, the grace's end, or `StopRequest.end`.
        FatalError: `StopRequest.give_up`.
    """
    request = StopRequest()

    def first(number: int, frame: FrameType | None) -> None:
        if request.number is not None:
            _stop(number, frame)
        request.number = number
        signal.setitimer(signal.ITIMER_REAL, grace_seconds)

    def ended(number: int, frame: FrameType | None) -> None:
        if request.cause is not None:
            raise _GivenUpError
        if request.number is not None:
            _stop(request.number, frame)

    with _handled(SIGNALS, first), _handled((signal.SIGALRM,), ended):
        try:
            yield request
        except _GivenUpError:
            raise FatalError(str(request.cause)) from None
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Put back, after the block, the handlers that a library replaces in it."""
    with _restored(SIGNALS):
        yield


def _stop(number: int, frame: FrameType | None) -> None:
    raise StoppedError(number)


@contextmanager
def _handled(
    numbers: tuple[signal.Signals, ...], handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    with _restored(numbers):
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                signal.signal(number, handler)
        yield


@contextmanager
def _restored(numbers: tuple[signal.Signals, ...]) -> Iterator[None]:
    """Only a process's main thread may set handlers; elsewhere they stay as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
