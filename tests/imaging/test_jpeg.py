"""libjpeg-turbo's way and Pillow's give the same, whatever the JPEG."""

from collections.abc import Iterator

import numpy as np
import pytest
from bad_images import BAD, encoded, galaxy
from PIL import Image

from gax_batch.imaging import jpeg
from gax_batch.imaging.cutout import ImageFlag, ImageLimits, decode_cutout
from gax_batch.rejects import Reject, RejectError

Outcome = tuple[bytes, ImageFlag] | Reject


def outcome(data: bytes, limits: ImageLimits = ImageLimits()) -> Outcome:  # noqa: B008  (frozen)
    try:
        cutout, flags = decode_cutout(data, limits=limits)
    except RejectError as error:
        return error.reject
    return cutout.tobytes(), flags


def damaged(data: bytes) -> Iterator[bytes]:
    """The image cut, followed by something, and with single bytes changed."""
    yield from (data[:-2], data[: len(data) // 3], data + b"tail", data[:-40] + bytes(40))
    dice = np.random.default_rng(3)
    for place in dice.integers(20, len(data), 25).tolist():
        yield data[:place] + bytes([data[place] ^ int(dice.integers(1, 256))]) + data[place + 1 :]


@pytest.fixture
def pillow(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Without the short way, as long as it is not undone."""
    monkeypatch.setattr(jpeg, "read_header", lambda _: None)
    return monkeypatch


def agree(images: list[bytes], pillow: pytest.MonkeyPatch) -> None:
    slow = [outcome(data) for data in images]
    pillow.undo()
    assert [outcome(data) for data in images] == slow


@pytest.mark.parametrize("side", [1, 7, 8, 9, 63, 64, 106, 212, 213, 300, 424, 425, 848, 1700])
def test_of_any_size_and_subsampling(side: int, pillow: pytest.MonkeyPatch) -> None:
    pixels = galaxy(side, side + 3)
    agree(
        [
            encoded(pixels, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive)
            for quality, subsampling, progressive in [(92, 2, False), (75, 1, False), (60, 0, True)]
        ]
        + [encoded(pixels[..., 0], "JPEG"), encoded(Image.fromarray(pixels).convert("CMYK"), "JPEG")],
        pillow,
    )


def test_of_damaged_images(pillow: pytest.MonkeyPatch) -> None:
    images = [data for side in (64, 424) for data in damaged(encoded(galaxy(side), "JPEG"))]
    agree([*images, *(make() for make, _ in BAD.values())], pillow)


def test_plain_images_take_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gax_batch.imaging.cutout._open", None)
    assert outcome(encoded(galaxy(424), "JPEG"))[1] == 0
    assert outcome(encoded(galaxy(424)[..., 0], "JPEG"))[1] == ImageFlag.GRAYSCALE


def test_limits_hold() -> None:
    data = encoded(galaxy(424), "JPEG")
    for limits, reason in (
        (ImageLimits(bytes=len(data) - 1), "too_many_bytes"),
        (ImageLimits(pixels=424 * 424 - 1), "too_many_pixels"),
    ):
        found = outcome(data, limits)
        assert isinstance(found, Reject)
        assert found.reason == reason
