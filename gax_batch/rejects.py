"""Rejected cutouts: the stages and reason codes, and the exception that carries them."""

from dataclasses import dataclass
from enum import StrEnum

MAX_DETAIL_CHARACTERS = 300


class Stage(StrEnum):
    """The step of a run at which a cutout was rejected."""

    PLAN = "plan"
    READ = "read"
    DECODE = "decode"
    INFER = "infer"


class Reason(StrEnum):
    """The fault of a cutout. The codes are stable: they are part of the catalog's format."""

    BAD_ID = "bad_id"
    DUPLICATE_ID = "duplicate_id"
    BAD_POSITION = "bad_position"
    OFF_FRAME = "off_frame"
    MISSING = "missing"
    CHANGED = "changed"
    UNREADABLE = "unreadable"
    EMPTY_FILE = "empty_file"
    TOO_MANY_BYTES = "too_many_bytes"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED_FORMAT = "unsupported_format"
    TRUNCATED = "truncated"
    CORRUPT = "corrupt"
    ZERO_PIXELS = "zero_pixels"
    TOO_MANY_PIXELS = "too_many_pixels"
    DECOMPRESSION_BOMB = "decompression_bomb"
    WRONG_SHAPE = "wrong_shape"
    NOT_FINITE = "not_finite"
    MASKED = "masked"
    MISSING_BAND = "missing_band"
    BLANK = "blank"
    POISON = "poison"


MEANING: dict[Reason, str] = {
    Reason.BAD_ID: "the galaxy_id is null, empty, too long or has control characters",
    Reason.DUPLICATE_ID: "another cutout of the survey has the same galaxy_id and was listed first",
    Reason.BAD_POSITION: "ra not in [0, 360], dec not in [-90, 90] degrees, only one given, or a bad radius",
    Reason.OFF_FRAME: "the position is on none of the frames",
    Reason.MISSING: "the object was listed but is no longer there",
    Reason.CHANGED: "the object changed between the listing and the read",
    Reason.UNREADABLE: "the storage refused the object or kept failing",
    Reason.EMPTY_FILE: "the object has no bytes",
    Reason.TOO_MANY_BYTES: "the object is larger than the configured limit",
    Reason.NOT_AN_IMAGE: "the bytes are not an image",
    Reason.UNSUPPORTED_FORMAT: "the image has an unsupported format",
    Reason.TRUNCATED: "the image ends before its last pixel",
    Reason.CORRUPT: "the image cannot be decoded",
    Reason.ZERO_PIXELS: "the image is zero pixels wide or high",
    Reason.TOO_MANY_PIXELS: "the image has more pixels than the configured limit",
    Reason.DECOMPRESSION_BOMB: "unpacked, it would exceed the limit of memory or of its bytes",
    Reason.WRONG_SHAPE: "a tensor or FITS image of no usable shape, or bands of different shapes",
    Reason.NOT_FINITE: "pixels are NaN or infinite",
    Reason.MASKED: "more than half of the cutout's pixels are masked, NaN or off the frame",
    Reason.MISSING_BAND: "a band that the preset needs is in none of the galaxy's FITS files",
    Reason.BLANK: "every pixel of the cutout has the same value, so nothing can be classified",
    Reason.POISON: "this one cutout crashes its worker, exhausts its memory, or exceeds the time limit",
}


# Faults of the storage, not of the cutout: a later run may read the same version without a fault.
PASSING: frozenset[Reason] = frozenset({Reason.MISSING, Reason.CHANGED, Reason.UNREADABLE})
# Maximum number of runs that retry a cutout after a storage error.
MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Reject:
    """The rejection of one cutout.

    Attributes:
        stage: Step of the run at which it was rejected.
        reason: Reason code.
        detail: One line for a person, of at most `MAX_DETAIL_CHARACTERS` characters.
    """

    stage: Stage
    reason: Reason
    detail: str

    @classmethod
    def of(cls, stage: Stage, reason: Reason, detail: str) -> "Reject":
        """Build a reject, with the detail on one line and truncated."""
        line = " ".join(detail.split())
        return cls(stage, reason, line[:MAX_DETAIL_CHARACTERS])


class RejectError(Exception):
    """Raised by functions that handle one cutout. It becomes a reject of the unit."""

    def __init__(self, stage: Stage, reason: Reason, detail: str) -> None:
        super().__init__(f"{stage}/{reason}: {detail}")
        self.reject = Reject.of(stage, reason, detail)
