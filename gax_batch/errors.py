"""Errors that carry blame: the user's mistake, a passing fault, or a fatal one.

A single galaxy's fault is none of these: it is a reject (see `gax_batch.rejects`).
"""

from typing import ClassVar


class GaxError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code: ClassVar[int] = 4


class UsageError(GaxError):
    """The user's mistake: one line that says what, why, and what to do.

    Nothing has been committed. A run that finds it late has stored parts, which the next run uses.
    """

    exit_code: ClassVar[int] = 2


class TransientError(GaxError):
    """A passing fault of storage or network that the bounded retries of its client did not outlast."""


class NoAnswerError(TransientError):
    """A server that no request reached: wrong address, or the network is down."""


class FatalError(GaxError):
    """Something that no retry mends; always raised with its cause."""


class UnknownCommitError(FatalError):
    """A commit failed, and the catalog cannot be read to see whether it is there all the same."""
