"""Recognize galaxies that were used to train a bundle, which must not evaluate it.

A bundle keeps sorted digests of its training galaxies: `training.ids_sha256` of their numbering and
identifier, and `training.pixels_sha256` of their cutouts, since one image can have two identifiers.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch.analysis.labels import Labels

Mask = npt.NDArray[np.bool_]
DIGITS = 12
"""Hexadecimal digits of each digest. Two of 100,000 galaxies share one with a probability of 2e-5."""
IDS, PIXELS = "ids_sha256", "pixels_sha256"


def id_digests(labels: Labels) -> list[str]:
    """Return the digest of each galaxy's numbering and identifier, row by row."""
    return [digest_of(f"{labels.numbering}:{name}".encode()) for name in labels.ids]


def pixel_digests(cutouts: npt.NDArray[np.uint8]) -> list[str]:
    """Return the digest of each cutout, row by row.

    Args:
        cutouts: uint8 `[N, 64, 64, 3]`.
    """
    return [digest_of(np.ascontiguousarray(cutout).tobytes()) for cutout in cutouts]


def is_recorded(manifest: Mapping[str, Any]) -> bool:
    """Return whether a bundle's manifest records its training galaxies."""
    return IDS in manifest.get("training", {})


def trained_by_id(manifest: Mapping[str, Any], labels: Labels) -> Mask:
    """Return whether each galaxy was used to train the bundle, by its identifier, bool `[N]`."""
    return _among(manifest, IDS, id_digests(labels))


def trained_by_pixels(manifest: Mapping[str, Any], cutouts: npt.NDArray[np.uint8]) -> Mask:
    """Return whether each galaxy was used to train the bundle, by the pixels of its cutout, bool `[N]`."""
    return _among(manifest, PIXELS, pixel_digests(cutouts))


def _among(manifest: Mapping[str, Any], key: str, digests: list[str]) -> Mask:
    recorded = frozenset(manifest.get("training", {}).get(key, ()))
    return np.array([digest in recorded for digest in digests], bool)


def digest_of(data: bytes) -> str:
    """Return the first digits of the SHA-256 of some bytes."""
    return hashlib.sha256(data).hexdigest()[:DIGITS]
