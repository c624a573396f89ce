"""Why a cutout could not be cataloged: stages, reason codes, and the exception that carries them."""

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
    """What was wrong with the cutout; the codes are stable and part of the catalog's format."""

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
    Reason.NOT_AN_IMAGE: "the bytes are no image",
    Reason.UNSUPPORTED_FORMAT: "an image, but of a format that is not read",
    Reason.TRUNCATED: "the image ends before its last pixel",
    Reason.CORRUPT: "the image cannot be decoded",
    Reason.ZERO_PIXELS: "the image is zero pixels wide or high",
    Reason.TOO_MANY_PIXELS: "the image has more pixels than the configured limit",
    Reason.DECOMPRESSION_BOMB: "it would unpack to more than the configured limit of memory or of its bytes",
    Reason.WRONG_SHAPE: "a tensor or FITS image of no usable shape, or bands of different shapes",
    Reason.NOT_FINITE: "pixels are NaN or infinite",
    Reason.MASKED: "more than half of the cutout's pixels are masked, NaN or off the frame",
    Reason.MISSING_BAND: "a band that the preset needs is in none of the galaxy's FITS files",
    Reason.BLANK: "every pixel of the cutout is the same: there is nothing to classify",
    Reason.POISON: "the cutout alone crashes its worker, exhausts its memory, or is not done in time",
}


# Faults of the storage, not of the cutout: another run may find the same version in order.
PASSING: frozenset[Reason] = frozenset({Reason.MISSING, Reason.CHANGED, Reason.UNREADABLE})
# Runs that try a cutout again which the storage did not give.
MAX_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Reject:
    """One rejected cutout's stage, reason code and human-readable detail."""

    stage: Stage
    reason: Reason
    detail: str

    @classmethod
    def of(cls, stage: Stage, reason: Reason, detail: str) -> "Reject":
        """Build a reject whose detail is one bounded line."""
        line = " ".join(detail.split())
        return cls(stage, reason, line[:MAX_DETAIL_CHARACTERS])


class RejectError(Exception):
    """Raised by the functions that handle one cutout; ends as one of the unit's rejects."""

    def __init__(self, stage: Stage, reason: Reason, detail: str) -> None:
        super().__init__(f"{stage}/{reason}: {detail}")
        self.reject = Reject.of(stage, reason, detail)
