"""Errors of object-store clients (obstore, delta-rs), as built-in errors of one line without secrets."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError, GenericError, PermissionDeniedError, UnauthenticatedError

from gax_batch.errors import NoAnswerError, TransientError

# The clients report the HTTP status (of a listing, of any error without a class), and whether the server
# answered, only in the text of an error. tests/s3/test_words.py provokes each text with the library itself.
_STATUS = re.compile(r"\bstatus(?: code)?:? (\d{3})\b")
_UNREACHED = re.compile(r"error sending request|dns", re.I)


class NoBucketError(FileNotFoundError):
    """The bucket does not exist."""


@contextmanager
def translated(uri: str) -> Iterator[None]:
    """Turn obstore's errors into FileNotFoundError, PermissionError, OSError or TransientError."""
    try:
        yield
    except FileNotFoundError as error:
        raise _absence(uri, str(error)) from None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise PermissionError(f"{uri}: access refused: {one_line(error)}") from None
    except GenericError as error:
        raise fault(uri, str(error)) from None
    except BaseError as error:
        raise OSError(f"{uri}: {one_line(error)}") from None


def fault(uri: str, text: str) -> OSError | TransientError:
    """Return the error that a text means: of obstore's `GenericError` or of delta-rs' `OSError`.

    Both texts are those of Rust's object_store. An error with neither a status nor a class is transient.
    """
    line, code = one_line(text), _status(text)
    if code == 404:
        return _absence(uri, text)
    if code in (401, 403):
        return PermissionError(f"{uri}: access refused: {line}")
    if code is None and _UNREACHED.search(_first(text)):
        # The end of the chain of causes names the address and what failed.
        return NoAnswerError(
            f"{uri}: the store does not answer: {line.rpartition('Error performing ')[2] or line}"
        )
    if code is None or code in (408, 429) or code >= 500:
        return TransientError(f"{uri}: the store keeps failing: {line}")
    return OSError(f"{uri}: {line}")


def broke_off(text: str) -> bool:
    """Return whether the text of an error means that an answer of the server was cut off."""
    return _status(text) is None and not _UNREACHED.search(_first(text))


def one_line(error: Exception | str) -> str:
    """Return an error's first line without the queries of its URLs, since some contain signatures."""
    return re.sub(r"(https?://[^\s?]+)\?\S+", r"\1", _first(str(error)))[:300]


def _absence(uri: str, text: str) -> FileNotFoundError:
    if "NoSuchBucket" in text:
        return NoBucketError(f"{uri}: the bucket does not exist in this store")
    return FileNotFoundError(f"{uri} does not exist")


def _status(text: str) -> int | None:
    found = _STATUS.search(_first(text))
    return int(found[1]) if found else None


def _first(text: str) -> str:
    return text.strip().partition("\n")[0]
