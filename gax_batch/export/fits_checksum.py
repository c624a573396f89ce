"""Compute the checksums of a streamed FITS extension (FITS Standard 4.0, section 4.4.2.7, appendix J)."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from astropy.io.fits import Header

_MASK = 0xFFFFFFFF
_EXCLUDED = frozenset(range(0x3A, 0x41)) | frozenset(range(0x5B, 0x61))
_UNKNOWN = "0" * 16
_COMMENTS = {"CHECKSUM": "HDU checksum", "DATASUM": "data unit checksum"}


class ChecksumStream:
    """Sums 32-bit big-endian words in ones' complement, from bytes that are added in pieces."""

    def __init__(self) -> None:
        """Start with no bytes."""
        self._words = 0
        self._left = b""

    def add(self, data: bytes) -> None:
        """Add the next bytes."""
        data = self._left + data
        whole = len(data) - len(data) % 4
        self._left = data[whole:]
        self._words = _add(self._words, _sum(data[:whole]))

    @property
    def total(self) -> int:
        """Sum of the bytes so far, padded with zeros to whole words."""
        return _add(self._words, _sum(self._left))


def reserve_checksums(header: "Header") -> None:
    """Append the cards CHECKSUM and DATASUM to a header that is otherwise complete."""
    for keyword, value in (("CHECKSUM", _UNKNOWN), ("DATASUM", "0")):
        header[keyword] = (value, _COMMENTS[keyword])


def with_checksums(header: "Header", data_sum: int) -> "Header":
    """Return the header with the checksums of an HDU.

    Args:
        header: Header with the cards of `reserve_checksums`.
        data_sum: `ChecksumStream.total` of its data.
    """
    header = header.copy()
    header["DATASUM"] = (str(data_sum), _COMMENTS["DATASUM"])
    header["CHECKSUM"] = (_UNKNOWN, _COMMENTS["CHECKSUM"])
    total = _add(_sum(header.tostring().encode("ascii")), data_sum)
    header["CHECKSUM"] = (_encode(~total & _MASK), _COMMENTS["CHECKSUM"])
    return header


def _sum(data: bytes) -> int:
    words = np.frombuffer(data + b"\0" * (-len(data) % 4), ">u4")
    return _add(int(words.sum(dtype=np.uint64)), 0)


def _add(first: int, second: int) -> int:
    total = first + second
    while total > _MASK:
        total = (total & _MASK) + (total >> 32)
    return total


def _encode(value: int) -> str:
    """Encode a number as 16 letters and digits, whose words add it to the sum of sixteen `0`."""
    characters = [0] * 16
    for place in range(4):
        quotient, remainder = divmod(value >> (24 - 8 * place) & 0xFF, 4)
        four = [quotient + remainder + ord("0"), *[quotient + ord("0")] * 3]
        while any(character in _EXCLUDED for character in four):
            for first in (0, 2):
                if _EXCLUDED & set(four[first : first + 2]):
                    four[first] += 1
                    four[first + 1] -= 1
        characters[place::4] = four
    # The value starts in column 12 of the card, one character after the start of a word.
    return bytes(characters[-1:] + characters[:-1]).decode("ascii")
