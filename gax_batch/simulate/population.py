"""The structure of the galaxies of a simulated survey, drawn at random.

The distributions follow the sample of Galaxy Zoo 2 (r < 17; Willett et al. 2013, MNRAS 435, 2835):
about half of the objects smooth, a tenth edge-on, a quarter spiral, a tenth with an odd feature.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from gax_batch.simulate.profiles import enclosing_radius

Array = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Draws = dict[str, Float64]

EDGE_ON_COSINE = 0.2  # below this, a disk is drawn edge-on: vertical structure instead of arms
# Galaxy Zoo 2 cutouts are 424 x 0.02 R90 wide and the central 256 become 64 pixels: R90 is 12.5 pixels.
# A slightly larger value reproduces the mean brightness profile of real cutouts.
FRAME_R90 = 15.0
_ARM_SHARES = (0.06, 0.6, 0.15, 0.08, 0.06, 0.05)  # shares of spirals with one, two, ... arms
_SDSS_BRIGHT, _GZ2_FAINT = 13.0, 17.0


class Kind(IntEnum):
    """The kind of object at the center of a cutout."""

    EARLY_TYPE = 0
    DISK = 1
    IRREGULAR = 2
    STAR = 3
    ARTIFACT = 4


KIND_SHARES = (0.42, 0.49, 0.06, 0.02, 0.01)


@dataclass(frozen=True)
class Population:
    """The structure of N objects: one array `[N]` per property, float32 unless noted.

    A feature that an object does not have has strength, ratio or number zero (no bar: `bar_strength` 0). Its
    length and angle then have no meaning. Stars and artifacts have only a magnitude and a position.
    """

    kind: npt.NDArray[np.int64]
    """A `Kind`."""
    magnitude: Array
    """Apparent r magnitude of the whole object (AB)."""
    pixel_scale: Array
    """Arcseconds per pixel of the 64-pixel cutout."""
    seeing: Array
    """Full width at half maximum of the point spread function's core, pixels."""
    x: Array
    """Column of the center, pixels (the center of the frame is 31.5)."""
    y: Array
    """Row of the center."""
    half_light_radius: Array
    """Half-light radius of bulge and disk together along the major axis, pixels."""
    bulge_fraction: Array
    """Fraction of the r flux of bulge and disk that is in the bulge."""
    sersic_n: Array
    """Sersic index of the bulge, 1 to 6."""
    bulge_radius: Array
    """Half-light radius of the bulge, pixels."""
    bulge_axis_ratio: Array
    """Apparent axis ratio of the bulge."""
    disk_radius: Array
    """Half-light radius of the disk, pixels."""
    axis_ratio: Array
    """Apparent axis ratio of the disk (for an early type, of the whole galaxy)."""
    cos_inclination: Array
    """Cosine of the disk's inclination: 1 is face-on, 0 edge-on."""
    disk_height: Array
    """Scale height of an edge-on disk, pixels."""
    position_angle: Array
    """Position angle of the major axis, degrees from north (up) through east (left), [0, 180)."""
    young_fraction: Array
    """Fraction of the disk's light from young, blue stars."""
    bar_strength: Array
    """Fraction of the disk's light in the bar."""
    bar_length: Array
    """Semi-major axis of the bar, pixels."""
    bar_angle: Array
    """Angle of the bar in the plane of the disk, radians from the line of nodes."""
    n_arms: npt.NDArray[np.int64]
    """Number of spiral arms; 0 for none."""
    pitch_angle: Array
    """Pitch angle of the arms, degrees. Its sign is the sense of winding."""
    arm_strength: Array
    """Contrast of the arms, 0 to 1."""
    arm_phase: Array
    """Radians."""
    flocculence: Array
    """Patchiness of the young stars, 0 to 1."""
    ring_strength: Array
    """Fraction of the disk's light in the ring."""
    ring_radius: Array
    """Radius of the ring in the plane of the disk, pixels."""
    dust: Array
    """Optical depth in r through the middle of the dust lane of an edge-on disk."""
    boxiness: Array
    """Shape of the bulge of an edge-on disk: 0 an ellipse, 1 a box."""
    disturbance: Array
    """Tidal bending of the coordinates, per half-light radius."""
    merger_ratio: Array
    """Flux of the companion divided by that of the galaxy; 0 without a companion."""
    merger_distance: Array
    """Distance of the companion, pixels."""
    merger_angle: Array
    """Direction to the companion, radians from the axis of the columns."""

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, rows: npt.NDArray[np.intp]) -> "Population":
        """Return the objects of some rows, in the order of the rows."""
        return Population(**{name: values[rows] for name, values in vars(self).items()})

    def followed_by(self, others: "Population") -> "Population":
        """Return these objects followed by the others."""
        both = (
            (name, np.concatenate([values, getattr(others, name)])) for name, values in vars(self).items()
        )
        return Population(**dict(both))

    @property
    def edge_on(self) -> npt.NDArray[np.bool_]:
        """Whether the object is a disk viewed edge-on."""
        side: Mask = (self.kind == Kind.DISK) & (self.cos_inclination < EDGE_ON_COSINE)
        return side


def draw_population(rng: np.random.Generator, n: int) -> Population:
    """Draw the structure of `n` objects.

    Args:
        rng: Source of randomness. The same state gives the same objects.
        n: Number of objects.

    Returns:
        A population of length `n`.
    """
    kind = rng.choice(len(Kind), size=n, p=KIND_SHARES)
    early, disk, irregular = (kind == k for k in (Kind.EARLY_TYPE, Kind.DISK, Kind.IRREGULAR))
    cos_inclination = rng.uniform(0, 1, n)
    parts = {
        "cos_inclination": cos_inclination,
        **_shape(rng, early, irregular, cos_inclination),
        **_decoration(rng, disk, irregular, cos_inclination),
    }
    parts |= _scale(rng, early, parts)
    parts |= _companion(rng, early | disk | irregular, parts["half_light_radius"], parts["axis_ratio"])
    n_arms = parts.pop("n_arms").astype(np.int64)
    return Population(kind=kind, n_arms=n_arms, **{name: v.astype(np.float32) for name, v in parts.items()})


def _shape(rng: np.random.Generator, early: Mask, irregular: Mask, cos_inclination: Float64) -> Draws:
    """Draw the light fractions, Sersic indices and axis ratios of bulges and disks."""
    n = len(early)
    bulge_fraction = np.where(early, rng.beta(5, 1.6, n), rng.beta(0.9, 3.0, n))
    bulge_fraction[irregular] = 0
    thickness = rng.uniform(0.12, 0.25, n)
    # The projection of an oblate spheroid (Hubble 1926, ApJ 64, 321).
    disk_ratio = np.sqrt(cos_inclination**2 * (1 - thickness**2) + thickness**2)
    # Ellipticals are rarely flatter than E6; the roundest are the most frequent.
    early_ratio = 1 - 0.68 * rng.beta(1.1, 1.7, n)
    return {
        "bulge_fraction": bulge_fraction,
        "sersic_n": np.where(early, rng.uniform(2.0, 6.0, n), rng.uniform(1.0, 4.0, n)),
        "axis_ratio": np.where(early, early_ratio, disk_ratio),
        "bulge_axis_ratio": np.where(early, early_ratio, 1 - (1 - disk_ratio) * rng.uniform(0.2, 0.6, n)),
        "position_angle": rng.uniform(0, 180, n),
        "young_fraction": np.where(early, rng.beta(1, 12, n), rng.beta(4.0, 2.0, n)),
        "disk_height": rng.uniform(0.10, 0.2, n),  # in units of the disk's half-light radius, converted later
    }


def _decoration(rng: np.random.Generator, disk: Mask, irregular: Mask, cos_inclination: Float64) -> Draws:
    """Draw bars, arms, rings, dust and boxes, each for its share of the disks. Lengths are in disk radii."""
    n = len(disk)
    side = disk & (cos_inclination < EDGE_ON_COSINE)
    face = disk & ~side
    spiral = face & (rng.random(n) < 0.72)
    barred = face & (rng.random(n) < 0.38)
    ringed = face & (rng.random(n) < 0.08)
    pitch = rng.uniform(8, 38, n) * rng.choice((-1.0, 1.0), n)
    flocculence = np.where(irregular, rng.uniform(0.6, 1, n), rng.uniform(0.1, 0.7, n))
    return {
        "n_arms": np.where(spiral, 1.0 + rng.choice(len(_ARM_SHARES), n, p=_ARM_SHARES), 0),
        "pitch_angle": np.where(spiral, pitch, 0),
        "arm_strength": np.where(spiral, rng.beta(3.0, 1.2, n), 0),
        "arm_phase": rng.uniform(0, 2 * np.pi, n),
        "flocculence": np.where(face | irregular, flocculence, 0),
        "bar_strength": np.where(barred, rng.uniform(0.08, 0.35, n), 0),
        "bar_length": rng.uniform(0.5, 1.1, n),
        "bar_angle": rng.uniform(0, np.pi, n),
        "ring_strength": np.where(ringed, rng.uniform(0.15, 0.5, n), 0),
        "ring_radius": rng.uniform(0.9, 1.6, n),
        "dust": np.where(side & (rng.random(n) < 0.5), rng.uniform(0.5, 3.0, n), 0),
        "boxiness": np.where(side & (rng.random(n) < 0.2), rng.uniform(0.4, 1, n), 0),
    }


def _scale(rng: np.random.Generator, early: Mask, parts: Draws) -> Draws:
    """Draw the brightness on the sky and the size in the frame. Convert all lengths to pixels."""
    n = len(early)
    share, index = parts["bulge_fraction"], parts["sersic_n"]
    ratio = np.where(early, rng.uniform(0.5, 0.9, n), rng.uniform(0.12, 0.35, n))
    # Petrosian magnitudes miss light in the wings of high-n profiles (Graham et al. 2005, AJ 130, 1535).
    petrosian = 0.9 * (0.995 - 0.17 * share * (index - 1) / 3)
    half, r90 = enclosing_radius(np.stack([np.full(n, 0.5), petrosian]), share, index, ratio)
    # SDSS measures R90 in circles: an inclined galaxy is longer than its R90.
    circular = 0.72 + 0.28 * parts["axis_ratio"]
    disk_radius = FRAME_R90 / (r90 * circular) * rng.lognormal(0, 0.1, n)
    half_light = half * disk_radius
    # Galaxy counts in Euclidean space rise as 10^(0.6 m).
    span = 10 ** (0.6 * (_GZ2_FAINT - _SDSS_BRIGHT))
    magnitude = _SDSS_BRIGHT + np.log10(1 + rng.random(n) * (span - 1)) / 0.6
    # Mean r surface brightness within the half-light radius, mag per square arcsecond: bulges are brighter.
    brightness = rng.normal(21.1 - 0.6 * share, 0.5, n)
    arcsec = np.sqrt(10 ** (0.4 * (brightness - magnitude)) / (2 * np.pi))
    pixel_scale = np.clip(arcsec / half_light, 0.2, 1.6)
    return {
        "magnitude": magnitude,
        "pixel_scale": pixel_scale,
        # Median seeing 1.32 arcsec in r, wings included (Abazajian et al. 2009, ApJS 182, 543).
        "seeing": np.clip(1.2 * rng.lognormal(0, 0.1, n) / pixel_scale, 0.9, 5.0),
        "x": 31.5 + rng.normal(0, 0.4, n),
        "y": 31.5 + rng.normal(0, 0.4, n),
        "half_light_radius": half_light,
        "disk_radius": disk_radius,
        "bulge_radius": ratio * disk_radius,
        "disk_height": parts["disk_height"] * disk_radius,
        "bar_length": parts["bar_length"] * disk_radius,
        "ring_radius": parts["ring_radius"] * disk_radius,
    }


def _companion(
    rng: np.random.Generator,
    galaxy: Mask,
    half_light: Float64,
    axis_ratio: Float64,
) -> Draws:
    """Draw interactions: a companion, and the tidal bending that it causes."""
    n = len(galaxy)
    merger = galaxy & (rng.random(n) < 0.06)
    disturbed = merger | (galaxy & (rng.random(n) < 0.03))
    stiffness = np.clip(3 * axis_ratio, 0.3, 1)  # a thin disk bends little before it looks unlike a disk
    return {
        "merger_ratio": np.where(merger, rng.uniform(0.15, 1.0, n), 0),
        "merger_distance": np.where(merger, np.clip(half_light * rng.uniform(0.8, 2.8, n), 4, 20), 0),
        "merger_angle": rng.uniform(0, 2 * np.pi, n),
        "disturbance": np.where(disturbed, rng.uniform(0.1, 0.4, n) * stiffness, 0),
    }
