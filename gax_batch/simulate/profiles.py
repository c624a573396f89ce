"""Surface-brightness profiles of galaxies, as functions of arrays of pixels.

Every profile is normalized: its integral over the plane is one, so a profile times a flux is a component of
that flux. Lengths are in pixels. Arguments other than coordinates have one value per galaxy, broadcast
against the pixels.
"""

import numpy as np
import numpy.typing as npt
from scipy.special import gammainc, gammaln, i0e

Array = npt.NDArray[np.float32]

EXPONENTIAL_RADIUS = 1.67834699  # half-light radius of an exponential disk in scale lengths (b_1)
_EDGE_ON_INTEGRAL = 1.5440678  # integral of exp(-x) sqrt(1 + pi x / 2) from zero to infinity
_LARGEST_RADIUS, _BISECTIONS = 16.0, 21  # to 1e-5


def sersic_b(n: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the constant b_n for which the half-light radius of a Sersic profile encloses half the light.

    Uses the asymptotic expansion of Ciotti & Bertin (1999, A&A 352, 447), equation 18. Its error is less than
    5e-5 for n >= 1 and decreases with n.

    Args:
        n: Sersic indices, at least 0.5.

    Returns:
        b_n, float64, of the same shape.
    """
    index = np.asarray(n, np.float64)
    inverse = 1 / index
    terms = 4 / 405 + inverse * (46 / 25515 + inverse * (131 / 1148175 - inverse * 2194697 / 30690717750))
    return 2 * index - 1 / 3 + inverse * terms


def sersic_enclosed(radius: npt.ArrayLike, n: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the fraction of a Sersic profile's light within a radius.

    Graham & Driver (2005, PASA 22, 118), equation 2.

    Args:
        radius: Elliptical radii in units of the half-light radius.
        n: Sersic indices, broadcast against `radius`.

    Returns:
        Fractions in [0, 1], float64.
    """
    index = np.asarray(n, np.float64)
    inside: npt.NDArray[np.float64] = gammainc(
        2 * index, sersic_b(index) * np.asarray(radius, np.float64) ** (1 / index)
    )
    return inside


def enclosing_radius(
    fraction: npt.ArrayLike,
    bulge_fraction: npt.ArrayLike,
    bulge_n: npt.ArrayLike,
    bulge_radius: npt.ArrayLike,
) -> npt.NDArray[np.float64]:
    """Return the radius that encloses a fraction of the light of a concentric bulge and exponential disk.

    Args:
        fraction: Enclosed fraction of the light, in (0, 1). Broadcast against the other arguments.
        bulge_fraction: Fraction of the light that is in the bulge.
        bulge_n: Sersic index of the bulge.
        bulge_radius: Half-light radius of the bulge in units of that of the disk.

    Returns:
        Radii in units of the disk's half-light radius, float64, accurate to 1e-5 and at most 16.
    """
    wanted, share, n, ratio = np.broadcast_arrays(
        *(np.asarray(a, np.float64) for a in (fraction, bulge_fraction, bulge_n, bulge_radius))
    )
    b = sersic_b(n)
    low, high = np.zeros(wanted.shape), np.full(wanted.shape, _LARGEST_RADIUS)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        scaled = EXPONENTIAL_RADIUS * middle
        disk = 1 - (1 + scaled) * np.exp(-scaled)
        inside = share * gammainc(2 * n, b * (middle / ratio) ** (1 / n)) + (1 - share) * disk
        short = inside < wanted
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    radius: npt.NDArray[np.float64] = (low + high) / 2
    return radius


def sersic(radius_squared: Array, n: Array, half_light: Array, axis_ratio: Array) -> Array:
    """Return a Sersic (1963) profile.

    Args:
        radius_squared: Squared elliptical radii along the major axis, square pixels, float32.
        n: Sersic indices.
        half_light: Half-light radii along the major axis, pixels.
        axis_ratio: Ratios of minor to major axis.

    Returns:
        Light per square pixel, float32. The total is that of Graham & Driver (2005), equation 4.
    """
    b = sersic_b(n)
    double = 2 * np.asarray(n, np.float64)
    log_total = (
        np.log(np.pi * double * axis_ratio) + 2 * np.log(half_light) + gammaln(double) - double * np.log(b)
    )
    # exp(-b (r / half_light) ** (1 / n)), with the power as a logarithm, so that a pixel costs one log and
    # two exp.
    power = np.log(np.maximum(radius_squared, np.float32(1e-6)))
    power *= _f32(1 / double)
    power += _f32(np.log(b) - 2 * np.log(half_light) / double)
    np.exp(power, out=power)
    np.subtract(_f32(-log_total), power, out=power)
    return np.exp(power, out=power)


def exponential(radius: Array, half_light: Array, axis_ratio: Array) -> Array:
    """Return an exponential disk: light per square pixel at elliptical radii, float32."""
    scale = half_light / np.float32(EXPONENTIAL_RADIUS)
    light = np.exp(radius * (-1 / scale))
    light *= 1 / (2 * np.float32(np.pi) * scale**2 * axis_ratio)
    return light


def edge_on_disk(along: Array, across: Array, half_light: Array, height: Array) -> Array:
    """Return a transparent exponential disk viewed edge-on, with a sech-squared vertical profile.

    The projection of an exponential disk is x K1(x) (van der Kruit & Searle 1981, A&A 95, 105). It is
    approximated by exp(-x) sqrt(1 + pi x / 2), which has the same limits at zero and infinity and differs by
    at most 2.2 % between them.

    Args:
        along: Distances from the center along the disk, pixels.
        across: Distances from the plane of the disk, pixels.
        half_light: Half-light radii of the face-on disk, pixels.
        height: Scale heights of the sech-squared law, pixels.

    Returns:
        Light per square pixel, float32.
    """
    scale = half_light / np.float32(EXPONENTIAL_RADIUS)
    x = np.abs(along) / scale
    light: Array = np.exp(-x)
    x *= np.float32(np.pi / 2)
    x += 1
    light *= np.sqrt(x)
    # sech(z)^2 = 4 e^(-2z) / (1 + e^(-2z))^2 for z >= 0, which cannot overflow.
    fall = np.exp(np.abs(across) * (-2 / height))
    light *= fall
    fall += 1
    light /= np.square(fall, out=fall)
    light *= 4 / (2 * np.float32(_EDGE_ON_INTEGRAL) * scale * 2 * height)
    return light


def bar(along: Array, across: Array, length: Array, width: Array, axis_ratio: Array) -> Array:
    """Return a flat-topped bar: exp(-rho^4) on ellipses with semi-axes `length` and `width`.

    Args:
        along: Coordinates along the bar in the plane of the disk, pixels.
        across: Coordinates across the bar in the plane of the disk, pixels.
        length: Semi-major axes, pixels.
        width: Semi-minor axes, pixels.
        axis_ratio: Axis ratios of the projected disk.

    Returns:
        Light per square pixel, float32.
    """
    rho = np.square(along / length)
    rho += np.square(across / width)
    light: Array = np.exp(-np.square(rho, out=rho))
    light *= 2 / (np.float32(np.pi**1.5) * length * width * axis_ratio)
    return light


def ring(radius: Array, center: Array, width: Array, axis_ratio: Array) -> Array:
    """Return a Gaussian ring: light per square pixel, float32, normalized for `width` well below `center`."""
    light: Array = np.square((radius - center) / width)
    np.exp(-light, out=light)
    light *= 1 / (2 * np.float32(np.pi**1.5) * center * width * axis_ratio)
    return light


def spiral_contrast(
    x: Array,
    y: Array,
    radius: Array,
    n_arms: npt.NDArray[np.int64],
    pitch: Array,
    phase: Array,
    sharpness: Array,
) -> Array:
    """Return the contrast of logarithmic spiral arms: a factor on a disk, with mean one around each circle.

    The crests are r = exp(tan(pitch) (theta - phase / n_arms)). The profile across them is a von Mises
    distribution of the spiral phase.

    Args:
        x: Coordinates along the projected major axis in the plane of the disk, pixels, float32 `[N, H, W]`.
        y: Coordinates along the projected minor axis in the plane of the disk, pixels, float32 `[N, H, W]`.
        radius: `sqrt(x^2 + y^2)`.
        n_arms: Numbers of arms, 1 to 6, `[N]`.
        pitch: Pitch angles in radians, `[N, 1, 1]`. Negative ones wind in the opposite sense.
        phase: Phase of the pattern in radians, `[N, H, W]` or `[N, 1, 1]`.
        sharpness: Concentration of the von Mises distribution, `[N, 1, 1]`.

    Returns:
        Factors, float32 `[N, H, W]`.
    """
    safe: Array = np.maximum(radius, np.float32(1e-3))
    winding = np.log(safe)
    winding *= -n_arms.astype(np.float32)[:, None, None] / np.tan(pitch)
    winding += phase
    real, imaginary = _unit_power(x / safe, y / safe, n_arms)
    crest = np.cos(winding)
    crest *= real
    imaginary *= np.sin(winding, out=winding)
    crest -= imaginary  # cos(m theta + winding)
    crest -= 1
    crest *= sharpness
    np.exp(crest, out=crest)
    crest *= _f32(1 / i0e(sharpness))
    return crest


def _unit_power(cosine: Array, sine: Array, power: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    """Return the cosine and sine of `power` times an angle, much faster than by an arctan2 and a cosine."""
    real, imaginary = cosine.copy(), sine.copy()
    for step in range(2, int(power.max(initial=1)) + 1):
        rows = np.flatnonzero(power >= step)
        old_real, old_imaginary = real[rows], imaginary[rows]
        real[rows] = old_real * cosine[rows] - old_imaginary * sine[rows]
        imaginary[rows] = old_real * sine[rows] + old_imaginary * cosine[rows]
    return real, imaginary


def _f32(values: npt.ArrayLike) -> Array:
    return np.asarray(values, np.float32)
