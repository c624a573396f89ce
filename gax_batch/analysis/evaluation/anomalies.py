"""Images that are not galaxies: stars, blank sky, noise, cosmic rays and artifacts, on real sky.

The background comes from the cutouts' own corners, so that only the object differs.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float64]
KINDS = ("stars", "blank_sky", "noise", "cosmic_rays", "artifacts")
_CORNER = 16


def anomalies(cutouts: Images, seed: int, count: int = 64) -> dict[str, Images]:
    """Return synthetic images that are not galaxies.

    Args:
        cutouts: Real cutouts whose sky is used, uint8 `[N, 64, 64, 3]`.
        seed: Seed of the random numbers.
        count: Number of images of each kind.

    Returns:
        Images, uint8 `[count, 64, 64, 3]`, by name of `KINDS`.
    """
    rng = np.random.default_rng([seed, 64])
    makers: dict[str, Callable[[Float, np.random.Generator], Float]] = {
        "stars": _star,
        "blank_sky": lambda sky, _: sky,
        "noise": _noise,
        "cosmic_rays": _cosmic_rays,
        "artifacts": _artifact,
    }
    result = {}
    for kind, make in makers.items():
        sources = rng.integers(0, len(cutouts), count)
        images = np.stack([make(_sky(cutouts[i], rng), rng) for i in sources])
        result[kind] = np.clip(np.rint(images), 0, 255).astype(np.uint8)
    return result


def turned(cutouts: Images) -> Images:
    """Return cutouts rotated by 90 degrees."""
    return np.ascontiguousarray(np.rot90(cutouts, 1, (1, 2)))


def auc(inside: npt.NDArray[np.float32], outside: npt.NDArray[np.float32]) -> float:
    """Return the probability that an outside score exceeds an inside one (Mann-Whitney U, ties half)."""
    ordered = np.sort(inside)
    below = np.searchsorted(ordered, outside, "left")
    ties = np.searchsorted(ordered, outside, "right") - below
    return float(np.mean((below + 0.5 * ties) / len(inside)))


def _sky(cutout: Images, rng: np.random.Generator) -> Float:
    """Return a cutout's sky: pixels of its darkest corner, each placed at random. `[64, 64, 3]`, 0 to 255."""
    low, high = slice(0, _CORNER), slice(64 - _CORNER, 64)
    corners = [cutout[a, b].reshape(-1, 3) for a in (low, high) for b in (low, high)]
    pixels = min(corners, key=lambda c: float(c.std()))
    return pixels[rng.integers(0, len(pixels), 64 * 64)].reshape(64, 64, 3).astype(np.float64)


def _star(sky: Float, rng: np.random.Generator) -> Float:
    """Return one to three point sources of a Moffat profile (beta 3), one of them at the center."""
    y, x = np.mgrid[:64, :64] - 31.5
    image = sky.copy()
    for index in range(rng.integers(1, 4)):
        dx, dy = (0.0, 0.0) if index == 0 else rng.uniform(-28, 28, 2)
        width = rng.uniform(1.2, 2.5)
        profile = (1 + ((x - dx) ** 2 + (y - dy) ** 2) / width**2) ** -3.0
        image += rng.uniform(150, 900) * profile[..., None] * rng.uniform(0.6, 1.0, 3)
    return image


def _noise(sky: Float, rng: np.random.Generator) -> Float:
    return rng.normal(rng.uniform(20, 140), rng.uniform(15, 80), sky.shape)


def _cosmic_rays(sky: Float, rng: np.random.Generator) -> Float:
    """Return straight, one-pixel tracks in one of the bands each."""
    image = sky.copy()
    for _ in range(rng.integers(3, 9)):
        start, angle, length = rng.uniform(8, 56, 2), rng.uniform(0, 2 * np.pi), rng.uniform(4, 30)
        steps = np.arange(0, length, 0.5)
        row = np.clip(np.rint(start[0] + steps * np.sin(angle)), 0, 63).astype(int)
        column = np.clip(np.rint(start[1] + steps * np.cos(angle)), 0, 63).astype(int)
        image[row, column, rng.integers(0, 3)] = 255
    return image


def _artifact(sky: Float, rng: np.random.Generator) -> Float:
    """Return a satellite trail, a bleeding column or a missing half, at full brightness."""
    image = sky.copy()
    y, x = np.mgrid[:64, :64] - 31.5
    kind = rng.integers(0, 3)
    if kind == 0:
        angle = rng.uniform(0, np.pi)
        distance = np.abs(x * np.sin(angle) - y * np.cos(angle) - rng.uniform(-10, 10))
        image += (220 * np.exp(-0.5 * (distance / rng.uniform(1, 2.5)) ** 2))[..., None]
    elif kind == 1:
        column = int(rng.integers(16, 48))
        image[:, column : column + int(rng.integers(1, 5))] = 255
    else:
        image[: int(rng.integers(20, 44))] = rng.choice([0.0, 255.0])
    return image
