"""Images of a population's light, before the atmosphere and the telescope."""

import dataclasses

import numpy as np
import numpy.typing as npt

from gax_batch.simulate import profiles
from gax_batch.simulate.population import Kind, Population

Array = npt.NDArray[np.float32]

SIDE = 64
OLD, YOUNG = 0, 1  # the two stellar populations: yellow and red stars, and blue ones

_WINDOW, _OVERSAMPLING = 8, 5  # central pixels whose bulge light is integrated, and points per pixel
_TEXTURE_NODES = 14
_ARM_SHARPNESS = 2.5
_WANDER = np.float32(0.7)  # radians of spiral phase
_PIXELS = np.arange(SIDE, dtype=np.float32)


def planes(galaxies: Population, rng: np.random.Generator) -> Array:
    """Draw the light of every object and its companion in two stellar populations.

    Args:
        galaxies: N objects.
        rng: Source of randomness for the patches of star formation.

    Returns:
        Light per pixel in r, float32 `[N, 2, 64, 64]`, in units of the object's flux without its companion.
        The last axes are rows and columns.
    """
    n, rows = len(galaxies), np.flatnonzero(galaxies.merger_ratio > 0)
    everyone = galaxies.followed_by(_companions(galaxies, rows))
    light = np.empty((len(everyone), 2, SIDE, SIDE), np.float32)
    side, star, trail = everyone.edge_on, everyone.kind == Kind.STAR, everyone.kind == Kind.ARTIFACT
    for wanted, paint in (
        (~(side | star | trail), _face_on),
        (side, _edge_on),
        (star, _star),
        (trail, _trail),
    ):
        chosen = np.flatnonzero(wanted)
        if chosen.size:
            light[chosen] = paint(everyone.take(chosen), rng)
    light[rows] += galaxies.merger_ratio[rows, None, None, None] * light[n:]
    return light[:n]


def _companions(galaxies: Population, rows: npt.NDArray[np.intp]) -> Population:
    """Return each merger's companion, with the structure of another merger but smaller, at its position."""
    own, other = galaxies.take(rows), galaxies.take(np.roll(rows, 1))
    size = np.sqrt(own.merger_ratio)
    return dataclasses.replace(
        other,
        x=own.x + own.merger_distance * np.cos(own.merger_angle),
        y=own.y + own.merger_distance * np.sin(own.merger_angle),
        bulge_radius=other.bulge_radius * size,
        disk_radius=other.disk_radius * size,
        disk_height=other.disk_height * size,
        bar_length=other.bar_length * size,
        ring_radius=other.ring_radius * size,
    )


def coordinates(galaxies: Population, columns: Array, rows: Array) -> tuple[Array, Array]:
    """Return the distances along and across each object's major axis.

    Args:
        galaxies: N objects.
        columns: Pixel coordinates, `[W]` or `[N, W]`.
        rows: Pixel coordinates, `[H]` or `[N, H]`.

    Returns:
        Distances along and across, pixels, each float32 `[N, H, W]`. They are bent where a tide disturbs the
        object.
    """
    angle = np.radians(galaxies.position_angle)
    sine, cosine = np.sin(angle)[:, None], np.cos(angle)[:, None]
    dx, dy = columns - galaxies.x[:, None], rows - galaxies.y[:, None]
    # North is up (towards row 0) and east is left (towards column 0).
    along = (-sine * dx)[:, None, :] + (-cosine * dy)[:, :, None]
    across = (cosine * dx)[:, None, :] + (-sine * dy)[:, :, None]
    bent = np.flatnonzero(galaxies.disturbance > 0)
    if bent.size:
        radius = _per_galaxy(galaxies.half_light_radius[bent])
        squared = np.square(along[bent] / radius)
        across[bent] -= _per_galaxy(galaxies.disturbance[bent]) * radius * squared / (1 + squared / 6)
    return along, across


def _per_galaxy(values: Array, rows: npt.NDArray[np.intp] | slice = slice(None)) -> Array:
    """Reshape one value per galaxy so that it is broadcast against the galaxy's pixels."""
    return values[rows, None, None]


def bulges(galaxies: Population, along: Array, across: Array) -> Array:
    """Return the bulges alone.

    The innermost pixels, where a Sersic profile is steeper than the pixels can sample, are integrated over
    5x5 points.

    Args:
        galaxies: N objects.
        along: Their `coordinates` along the major axis at the pixels, float32 `[N, 64, 64]`.
        across: Their `coordinates` across the major axis, float32 `[N, 64, 64]`.

    Returns:
        Light per pixel, float32 `[N, 64, 64]`, with a total of one for each galaxy.
    """
    light = _bulge_at(galaxies, along, across)
    start_x = np.clip(np.floor(galaxies.x) - _WINDOW // 2 + 1, 0, SIDE - _WINDOW)[:, None]
    start_y = np.clip(np.floor(galaxies.y) - _WINDOW // 2 + 1, 0, SIDE - _WINDOW)[:, None]
    fine = (np.arange(_WINDOW * _OVERSAMPLING, dtype=np.float32) + 0.5) / _OVERSAMPLING - 0.5
    points = _bulge_at(galaxies, *coordinates(galaxies, start_x + fine, start_y + fine))
    mean = np.repeat(np.eye(_WINDOW, dtype=np.float32), _OVERSAMPLING, axis=1) / _OVERSAMPLING
    steps = np.arange(_WINDOW)
    rows, columns = start_y.astype(int) + steps, start_x.astype(int) + steps
    window = np.arange(len(galaxies))[:, None, None], rows[:, :, None], columns[:, None, :]
    light[window] = mean @ points @ mean.T
    return light


def _bulge_at(galaxies: Population, along: Array, across: Array) -> Array:
    along = np.square(along)
    across = np.square(across / _per_galaxy(galaxies.bulge_axis_ratio))
    radius_squared = along + across
    boxy = np.flatnonzero(galaxies.boxiness > 0)
    if boxy.size:
        box = np.hypot(along[boxy], across[boxy])
        radius_squared[boxy] += _per_galaxy(galaxies.boxiness[boxy]) * (box - radius_squared[boxy])
    shape = (galaxies.sersic_n, galaxies.bulge_radius, galaxies.bulge_axis_ratio)
    return profiles.sersic(radius_squared, *(_per_galaxy(s) for s in shape))


def _face_on(galaxies: Population, rng: np.random.Generator) -> Array:
    """Return bulges and disks with bars, arms, rings and patches, at any inclination except edge-on."""
    light = np.empty((len(galaxies), 2, SIDE, SIDE), np.float32)
    x, y = coordinates(galaxies, _PIXELS, _PIXELS)
    bulge = bulges(galaxies, x, y)
    bulge *= _per_galaxy(galaxies.bulge_fraction)
    y /= _per_galaxy(galaxies.axis_ratio)
    radius = x * x
    radius += y * y
    np.sqrt(radius, out=radius)
    disk = profiles.exponential(radius, _per_galaxy(galaxies.disk_radius), _per_galaxy(galaxies.axis_ratio))
    smooth = (1 - galaxies.bulge_fraction) * (1 - galaxies.bar_strength - galaxies.ring_strength)
    disk *= _per_galaxy(smooth)
    np.multiply(disk, _per_galaxy(galaxies.young_fraction), out=light[:, YOUNG])
    np.subtract(disk, light[:, YOUNG], out=light[:, OLD])
    _add_structure(light, galaxies, x, y, radius, rng)
    _add_ring(light, galaxies, radius)
    _add_bar(light, galaxies, x, y)
    light[:, OLD] += bulge
    return light


def _add_structure(
    light: Array, galaxies: Population, x: Array, y: Array, radius: Array, rng: np.random.Generator
) -> None:
    """Add spiral arms, and patches of star formation to disks that have them."""
    rows = np.flatnonzero(galaxies.flocculence > 0)
    if not rows.size:
        return
    texture = _texture(len(rows), rng)
    texture *= _per_galaxy(galaxies.flocculence[rows])
    spiral = galaxies.n_arms[rows] > 0
    # The transposed texture shifts the phase of the arms, so that no arm is a perfect curve.
    wander = _WANDER * texture[spiral].swapaxes(1, 2)
    _add_arms(light, galaxies, rows[spiral], x, y, radius, wander)
    texture -= np.square(_per_galaxy(galaxies.flocculence[rows])) / 2  # a log-normal field of mean one
    light[rows, YOUNG] *= np.exp(texture, out=texture)


def _texture(n: int, rng: np.random.Generator) -> Array:
    """Return smooth random fields `[n, 64, 64]` of unit variance, for patches of star formation."""
    nodes = np.linspace(-2, SIDE + 1, _TEXTURE_NODES)
    spacing = nodes[1] - nodes[0]
    basis = np.exp(-0.5 * ((np.arange(SIDE)[:, None] - nodes) / (0.6 * spacing)) ** 2)
    basis /= np.sqrt(np.square(basis).sum(axis=1, keepdims=True))
    weights = rng.standard_normal((n, _TEXTURE_NODES, _TEXTURE_NODES), np.float32)
    smooth = basis.astype(np.float32)
    fields: Array = smooth @ weights @ smooth.T
    return fields


def _add_arms(
    light: Array,
    galaxies: Population,
    rows: npt.NDArray[np.intp],
    x: Array,
    y: Array,
    radius: Array,
    wander: Array,
) -> None:
    if not rows.size:
        return
    radius = radius[rows]
    crest = profiles.spiral_contrast(
        x[rows],
        y[rows],
        radius,
        galaxies.n_arms[rows],
        np.radians(_per_galaxy(galaxies.pitch_angle, rows)),
        wander + _per_galaxy(galaxies.arm_phase, rows),
        np.full((len(rows), 1, 1), _ARM_SHARPNESS, np.float32),
    )
    # Arms begin outside the bulge, or at the bar's ends.
    barred = _per_galaxy(galaxies.bar_strength, rows) > 0
    inner = np.where(
        barred,
        np.float32(0.7) * _per_galaxy(galaxies.bar_length, rows),
        np.float32(0.35) * _per_galaxy(galaxies.disk_radius, rows),
    )
    squared = np.square(radius)
    taper = squared / (squared + np.square(inner))
    crest -= 1
    crest *= taper
    crest *= _per_galaxy(galaxies.arm_strength, rows)
    light[rows, YOUNG] *= 1 + crest
    light[rows, OLD] *= 1 + np.float32(0.6) * crest


def _add_ring(light: Array, galaxies: Population, radius: Array) -> None:
    rows = np.flatnonzero(galaxies.ring_strength > 0)
    if rows.size:
        center = _per_galaxy(galaxies.ring_radius, rows)
        axis_ratio = _per_galaxy(galaxies.axis_ratio, rows)
        shine = profiles.ring(radius[rows], center, np.float32(0.2) * center, axis_ratio)
        shine *= _per_galaxy((1 - galaxies.bulge_fraction) * galaxies.ring_strength, rows)
        light[rows] += np.float32(0.5) * shine[:, None]


def _add_bar(light: Array, galaxies: Population, x: Array, y: Array) -> None:
    rows = np.flatnonzero(galaxies.bar_strength > 0)
    if rows.size:
        angle, length = _per_galaxy(galaxies.bar_angle, rows), _per_galaxy(galaxies.bar_length, rows)
        axis_ratio = _per_galaxy(galaxies.axis_ratio, rows)
        cosine: Array = np.cos(angle)
        sine: Array = np.sin(angle)
        along = cosine * x[rows] + sine * y[rows]
        across = cosine * y[rows] - sine * x[rows]
        shine = profiles.bar(along, across, length, np.float32(0.3) * length, axis_ratio)
        shine *= _per_galaxy((1 - galaxies.bulge_fraction) * galaxies.bar_strength, rows)
        light[rows, OLD] += shine


def _edge_on(galaxies: Population, rng: np.random.Generator) -> Array:
    """Return disks viewed edge-on, with the bulge behind the dust lane."""
    along, across = coordinates(galaxies, _PIXELS, _PIXELS)
    disk = profiles.edge_on_disk(
        along, across, _per_galaxy(galaxies.disk_radius), _per_galaxy(galaxies.disk_height)
    )
    disk *= _per_galaxy(1 - galaxies.bulge_fraction)
    young = _per_galaxy(galaxies.young_fraction)
    light = np.stack([(1 - young) * disk, young * disk], axis=1)
    light[:, OLD] += _per_galaxy(galaxies.bulge_fraction) * bulges(galaxies, along, across)
    rows = np.flatnonzero(galaxies.dust > 0)
    if rows.size:
        depth: Array = np.exp(-np.abs(across[rows]) / _per_galaxy(galaxies.disk_height, rows))
        depth *= np.exp(-np.abs(along[rows]) / _per_galaxy(2 * galaxies.disk_radius, rows))
        depth *= _per_galaxy(-galaxies.dust, rows)
        light[rows, OLD] *= np.exp(depth)
        light[rows, YOUNG] *= np.exp(np.float32(1.6) * depth)  # young stars lie deeper in the dust
    return light


def _star(galaxies: Population, rng: np.random.Generator) -> Array:
    """Return a star bright enough to show the halo and the diffraction spikes of the telescope."""
    dx, dy = _PIXELS - galaxies.x[:, None], _PIXELS - galaxies.y[:, None]
    radius_squared = np.square(dx)[:, None, :] + np.square(dy)[:, :, None]
    width = _per_galaxy(np.square(galaxies.seeing))
    core = np.exp(-radius_squared / width) / (np.float32(np.pi) * width)
    halo = (1 + radius_squared / (4 * width)) ** -1.5
    thin_x, thin_y = np.exp(-np.square(dx)), np.exp(-np.square(dy))
    long_x, long_y = np.exp(-np.abs(dx) / 9), np.exp(-np.abs(dy) / 9)
    spikes = thin_x[:, None, :] * long_y[:, :, None] + long_x[:, None, :] * thin_y[:, :, None]
    shine = core + np.float32(0.004) * halo + np.float32(0.003) * spikes
    hue = rng.random((len(galaxies), 1, 1), np.float32)
    return np.stack([hue * shine, (1 - hue) * shine], axis=1)


def _trail(galaxies: Population, rng: np.random.Generator) -> Array:
    """Return the straight trail of a satellite or meteor across the frame."""
    _, across = coordinates(galaxies, _PIXELS, _PIXELS)
    trail = np.exp(-np.square(across)) / (8 * SIDE)
    hue = rng.random((len(galaxies), 1, 1), np.float32)
    return np.stack([hue * trail, (1 - hue) * trail], axis=1)
