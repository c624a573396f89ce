"""Stop a process by SIGINT (Ctrl-C) or SIGTERM, immediately or after a grace period.

Handlers only record the signal or raise: they may interrupt any function that they would call.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from gax_batch.errors import FatalError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(BaseException):
    """A signal stopped this process. It is not an Exception, so that `except Exception` cannot catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number

    @property
    def exit_code(self) -> int:
        """The exit code that a shell reports for a process ended by the signal: 130 or 143."""
        return 128 + self.number


class _AbortedError(BaseException):
    """Carries the cause through code that handles exceptions, up to the end of `drain_on_signal`."""


class StopRequest:
    """A request, made by the first signal, to finish the work in flight."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.cause: str | None = None
        """Why the block is aborted."""

    def end(self) -> None:
        """Raise `StoppedError` in the main thread, from any thread, once nothing is in flight."""
        if self.number is not None:
            signal.setitimer(signal.ITIMER_REAL, 1e-3)

    def give_up(self, cause: str) -> None:
        """Raise `FatalError` from the block, from any thread. Works only where signals can be handled."""
        if self.cause is None:
            self.cause = cause
            # Without a handler, the timer's signal would terminate the process.
            if callable(signal.getsignal(signal.SIGALRM)):
                signal.setitimer(signal.ITIMER_REAL, 1e-3)


@contextmanager
def cancel_on_signal() -> Iterator[None]:
    """Raise `StoppedError` on a signal within the block."""
    with _handled(SIGNALS, _stop):
        yield


@contextmanager
def drain_on_signal(grace_seconds: float) -> Iterator[StopRequest]:
    """Record the first signal within the block; raise on a second one or at the end of the grace period.

    Args:
        grace_seconds: Grace period after the first signal in seconds, more than 0.

    Raises:
        StoppedError: A second signal came, the grace period ended, or `StopRequest.end` was called.
        FatalError: `StopRequest.give_up` was called.
    """
    request = StopRequest()

    def first(number: int, frame: FrameType | None) -> None:
        if request.number is not None:
            _stop(number, frame)
        request.number = number
        signal.setitimer(signal.ITIMER_REAL, grace_seconds)

    def ended(number: int, frame: FrameType | None) -> None:
        if request.cause is not None:
            raise _AbortedError
        if request.number is not None:
            _stop(request.number, frame)

    with _handled(SIGNALS, first), _handled((signal.SIGALRM,), ended):
        try:
            yield request
        except _AbortedError:
            raise FatalError(str(request.cause)) from None
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Restore, after the block, the handlers that a library replaces in it."""
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
    """Restore the handlers after the block. Outside the main thread, which alone may set them, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
