"""Errors by cause: a mistake of the user, a temporary fault, or a fatal one.

A fault of a single galaxy is none of these: it is a reject (see `gax_batch.rejects`).
"""

from typing import ClassVar


class GaxError(Exception):
    """Base of all errors that this package raises on purpose."""

    exit_code: ClassVar[int] = 4


class UsageError(GaxError):
    """A mistake of the user. The message is one line: what is wrong, why, and what to do.

    Nothing has been committed. A run that detects the mistake late has stored parts, which the next run uses.
    """

    exit_code: ClassVar[int] = 2


class TransientError(GaxError):
    """A temporary fault of storage or network that outlasted the retries of the client."""


class NoAnswerError(TransientError):
    """No request reached the server: the address is wrong, or the network is down."""


class FatalError(GaxError):
    """A fault that a retry cannot repair. Always raised with its cause."""


class UnknownCommitError(FatalError):
    """A commit failed, and the catalog cannot be read to find out whether it was made nevertheless."""
