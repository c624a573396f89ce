"""The atmosphere and the telescope: seeing, colors, noise, and the RGB rendering of SDSS.

Surface brightnesses are in nanomaggies per native SDSS pixel of 0.396 arcsec; band order is i, r, g
(red, green, blue).
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

NATIVE_PIXEL = 0.396  # arcsec, of the SDSS camera (Gunn et al. 1998, AJ 116, 3040)
ZERO_POINT = 22.5  # magnitude of one nanomaggie

# Sky brightness (nanomaggies per native pixel: 20.3, 20.9 and 21.9 mag per square arcsecond) and
# electrons per nanomaggie of the 53.9 s exposures, in i, r, g (Stoughton et al. 2002, AJ 123, 485).
_SKY = np.array([1.19, 0.685, 0.273], np.float32)
_ELECTRONS = np.array([700.0, 950.0, 800.0], np.float32)

# Sky brightness and transparency vary from field to field.
_NIGHT_SPREAD = 0.5

# Standard deviation of the noise that resampling and compression leave of white noise.
_GRAIN = np.float32(0.42)

# Double-Gaussian seeing of SDSS: the wings have a fifth of the light and are twice as wide as the core.
_WING_LIGHT, _WING_WIDTH = np.float32(0.2), np.float32(2.0)
_FWHM = np.float32(2 * np.sqrt(2 * np.log(2)))

# Band weights of Wherry, Blanton & Hogg's rendering of SDSS; the overall scale and the softening
# were set so that the simulated cutouts have the brightness profile of real ones.
_SCALES = np.array([4.9, 5.7, 7.8], np.float32) * np.float32(0.3)
_NONLINEARITY = np.float32(2.2)
_PEDESTAL = np.float32(0.014)


def psf_matrices(seeing: Array, side: int) -> tuple[Array, Array]:
    """Return one-dimensional convolutions with the core and the wings of the seeing, as matrices.

    Args:
        seeing: Full width at half maximum of the core, pixels, float32 `[N]`.
        side: Pixels along one axis of the images.

    Returns:
        Core and wings, each float32 `[N, side, side]`. Rows sum to one, so that the sky stays flat up to the
        border.
    """
    distance = np.arange(side, dtype=np.float32)
    lag = np.abs(np.subtract.outer(np.arange(side), np.arange(side)))
    sigma = seeing[:, None] / _FWHM

    def matrix(width: Array) -> Array:
        kernel: Array = np.exp(np.float32(-0.5) * np.square(distance / width)).take(lag, axis=1)
        kernel /= kernel.sum(axis=2, keepdims=True)
        return kernel

    return matrix(sigma), matrix(sigma * _WING_WIDTH)


def convolve(light: Array, seeing: Array) -> Array:
    """Blur images with the double-Gaussian seeing. Each Gaussian is separable: two matrix products.

    Args:
        light: Images, float32 `[N, C, side, side]`.
        seeing: Full width at half maximum of the core, pixels, float32 `[N]`.

    Returns:
        The blurred images, float32 of the same shape. Flux away from the border is conserved.
    """
    core, wings = psf_matrices(seeing, light.shape[-1])
    blurred: Array = _separable(core, light)
    blurred *= 1 - _WING_LIGHT
    halo = _separable(wings, light)
    halo *= _WING_LIGHT
    blurred += halo
    return blurred


def _separable(matrix: Array, light: Array) -> Array:
    """Apply one matrix along the rows and the columns of every channel."""
    rows: Array = light @ matrix.swapaxes(1, 2)[:, None]
    both: Array = matrix[:, None] @ rows
    return both


def add_noise(bands: Array, pixel_scale: Array, rng: np.random.Generator) -> None:
    """Add the photon noise of object and sky in place, in the Gaussian limit of the Poisson distribution.

    Args:
        bands: Sky-subtracted surface brightness, nanomaggies per native pixel, float32 `[N, 3, side, side]`,
            non-negative.
        pixel_scale: Arcseconds per pixel, float32 `[N]`. Averaging over several native pixels lowers the
            noise. Pixels finer than the native ones are interpolated, which does not raise the noise.
        rng: Source of randomness.
    """
    averaged = np.minimum(1, np.square(NATIVE_PIXEL / pixel_scale))[:, None, None, None]
    night = rng.lognormal(0, _NIGHT_SPREAD, (len(bands), 1, 1, 1)).astype(np.float32)
    gain = averaged * night / _ELECTRONS[:, None, None]
    deviation = bands + _SKY[:, None, None]
    deviation *= gain
    np.sqrt(deviation, out=deviation)
    deviation *= _grain(bands.shape, rng)
    bands += deviation


def _grain(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return the noise that the resampling and JPEG compression of survey cutouts leave, float32 `shape`.

    It is a mean of 2x2 neighbors, with the standard deviation and the correlation of 0.5 measured in the dark
    corners of real cutouts. A sum of four uniform variates is close enough to normal (it ends at 3.5 standard
    deviations) and costs a tenth of four normal variates.
    """
    *outer, height, width = shape
    even = rng.integers(0, 256, (*outer, height + 1, width + 1), np.uint8)
    pairs = np.add(even[..., :-1], even[..., 1:], dtype=np.uint16)
    grain: Array = np.add(pairs[..., :-1, :], pairs[..., 1:, :], dtype=np.float32)
    grain -= 4 * 127.5
    grain *= _GRAIN / np.float32(np.sqrt(4 * (256**2 - 1) / 12))
    return grain


def lupton_rgb(bands: Array) -> npt.NDArray[np.uint8]:
    """Map three bands to colors that keep their hue at any brightness.

    Lupton et al. (2004, PASP 116, 133): asinh stretches the sum of the bands; their ratios are preserved.

    Args:
        bands: Surface brightness in i, r, g, nanomaggies per native pixel, float32 `[N, 3, H, W]`.
            Overwritten.

    Returns:
        RGB images, uint8 `[N, H, W, 3]`.
    """
    bands *= _SCALES[:, None, None]
    bands += _PEDESTAL
    np.maximum(bands, 0, out=bands)
    total = bands.sum(axis=1)
    total *= _NONLINEARITY
    np.maximum(total, np.float32(0.01), out=total)
    # asinh(t) = log(t + sqrt(t^2 + 1)). NumPy's asinh is an order of magnitude slower.
    stretched = np.square(total)
    stretched += 1
    np.sqrt(stretched, out=stretched)
    stretched += total
    np.log(stretched, out=stretched)
    stretched /= total
    # If one is too bright for 8 bits, scale all three down together, which keeps the hue.
    brightest = bands.max(axis=1)
    brightest *= stretched
    np.maximum(brightest, 1, out=brightest)
    stretched *= np.float32(255) / brightest
    stretched = stretched[:, None]
    bands *= stretched
    bands += np.float32(0.5)
    out = np.empty((bands.shape[0], *bands.shape[2:], 3), np.uint8)
    for channel in range(3):
        np.copyto(out[..., channel], bands[:, channel], casting="unsafe")
    return out
