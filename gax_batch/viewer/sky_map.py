"""Maps of the sky of equal area: the map of the explorer, and the maps of the report.

The whole sky is in Mollweide's projection, a part of it in Lambert's azimuthal one (Snyder 1987, USGS
Professional Paper 1395, pages 249 and 182). Right ascension grows to the left.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from html import escape

import numpy as np
import numpy.typing as npt

from gax_batch.imaging.wcs import Floats, directions, healpix_cells
from gax_batch.viewer.png import png_uri

CELL_ORDER = 12
"""Order of the HEALPix cells by which the explorer counts galaxies: 51 arcsec."""

WHOLE_SKY_ORDER = 5
"""Order of the HEALPix cells of a map of the whole sky: 12,288 cells of 3.4 square degrees."""

WIDTH, HEIGHT = 480, 240
_NIGHT = (16, 20, 31)
# Matplotlib's viridis without its darkest third, which a dark sky would hide.
_COLORS = np.array(
    [
        (53, 95, 141),
        (42, 120, 142),
        (33, 145, 140),
        (34, 168, 132),
        (68, 191, 112),
        (122, 209, 81),
        (189, 223, 38),
        (253, 231, 37),
    ]
)
_WIDE_RANGE = 30
"""Ratio of the largest to the smallest value from which a scale is logarithmic."""
_CELLS_ACROSS = 60
_WIDEST = 60.0
_COUNTED_AT_ONCE = 8
"""Largest order at which an array of one number for each cell of the sky is small."""

Cells = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class View:
    """The part of the sky that a map shows. On the map, x is -2 to 2 to the right and y is -1 to 1 upwards.

    Attributes:
        ra: Right ascension of the center, degrees.
        dec: Declination of the center, degrees.
        radius: Angle from the center to the upper edge, degrees; None for the whole sky.
    """

    ra: float = 180.0
    dec: float = 0.0
    radius: float | None = None

    @property
    def order(self) -> int:
        """Order of the HEALPix cells that are drawn."""
        if self.radius is None:
            return WHOLE_SKY_ORDER
        finest = math.log2(58.6 * _CELLS_ACROSS / (2 * self.radius))
        return int(min(max(round(finest), WHOLE_SKY_ORDER), CELL_ORDER))

    @property
    def scale(self) -> float:
        """Distance from the center to the upper edge in Lambert's projection of the unit sphere."""
        return 2 * math.sin(math.radians(self.radius or 0) / 2)

    def project(self, ra: Floats, dec: Floats) -> tuple[Floats, Floats]:
        """Return x and y of positions in degrees; NaN for a position opposite the center."""
        lon, lat = np.radians((ra - self.ra + 180) % 360 - 180), np.radians(dec)
        if self.radius is None:
            theta = _mollweide_angle(lat)
            return -2 * lon / np.pi * np.cos(theta), np.sin(theta)
        lat0 = math.radians(self.dec)
        nearness = 1 + np.sin(lat0) * np.sin(lat) + np.cos(lat0) * np.cos(lat) * np.cos(lon)
        factor = np.sqrt(2 / np.where(nearness > 1e-9, nearness, np.nan)) / self.scale
        up = np.cos(lat0) * np.sin(lat) - np.sin(lat0) * np.cos(lat) * np.cos(lon)
        return -factor * np.cos(lat) * np.sin(lon), factor * up

    def unproject(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return the positions of x and y in degrees; NaN outside the sky. The page's script has a copy."""
        if self.radius is None:
            inside = (x / 2) ** 2 + y**2 <= 1
            theta = np.arcsin(np.where(inside, y, 0))
            lat = np.arcsin(np.clip((2 * theta + np.sin(2 * theta)) / np.pi, -1, 1))
            lon = np.where(inside, -x * np.pi / 2 / np.maximum(np.cos(theta), 1e-9), np.nan)
            return (self.ra + np.degrees(lon)) % 360, np.where(inside, np.degrees(lat), np.nan)
        distance = np.hypot(x, y) * self.scale
        inside = distance <= 2
        angle = 2 * np.arcsin(np.where(inside, distance, 0) / 2)
        lat0, safe = math.radians(self.dec), np.maximum(distance, 1e-12)
        east, up = -x * self.scale, y * self.scale
        sin_lat = np.cos(angle) * math.sin(lat0) + up * np.sin(angle) * math.cos(lat0) / safe
        lat = np.arcsin(np.clip(sin_lat, -1, 1))
        lon = np.arctan2(
            east * np.sin(angle),
            safe * math.cos(lat0) * np.cos(angle) - up * math.sin(lat0) * np.sin(angle),
        )
        return (self.ra + np.degrees(lon)) % 360, np.where(inside, np.degrees(lat), np.nan)


def whole_view(ra: Floats, dec: Floats) -> View:
    """Return the view that shows all positions, `[N]` degrees; NaN where a galaxy has none."""
    there = np.isfinite(ra) & np.isfinite(dec)
    vectors = directions(ra[there], dec[there])
    middle = vectors.mean(axis=0) if len(vectors) else np.zeros(3)
    length = float(np.linalg.norm(middle))
    if length < 0.1:
        return View()
    middle /= length
    farthest = math.degrees(math.acos(float(np.clip((vectors @ middle).min(), -1, 1))))
    if farthest > _WIDEST:
        return View()
    ra_there, dec_there = (
        math.degrees(math.atan2(middle[1], middle[0])) % 360,
        math.degrees(math.asin(middle[2])),
    )
    return View(round(ra_there, 4), round(dec_there, 4), max(1.1 * farthest, 0.05))


def picture(view: View, cells: Cells) -> str:
    """Draw the density of galaxies as a PNG in a data URI, brighter where there are more galaxies.

    Args:
        view: Part of the sky to draw.
        cells: HEALPix cell of each galaxy, of order `CELL_ORDER`; -1 for a galaxy without a position.
    """
    shown = _cells_of(view)
    count = _counts(cells[cells >= 0] >> 2 * (CELL_ORDER - view.order), shown, view.order)
    bright = np.log1p(count) / np.log1p(max(count.max(), 1))
    # The picture is redrawn for each answer and sent over loopback, so speed matters more than size.
    return png_uri(_colored(shown, np.where(count > 0, bright, np.nan)), effort=1)


def whole_sky(values: Floats, title: str) -> str:
    """Draw a map of the whole sky with a scale of its colors, as an SVG element.

    Args:
        values: Value of each HEALPix cell, float64 `[12 * 4**WHOLE_SKY_ORDER]`; NaN without a value.
            At least one cell has a value.
        title: Description of the values.
    """
    view = View()
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    wide = high > _WIDE_RANGE * low > 0
    ends = np.log([low, high]) if wide else np.array([low, high])
    scaled = (np.log(values) if wide else values) - ends[0]
    shown = _cells_of(view)
    level = np.where(shown >= 0, scaled[shown], np.nan) / (ends[1] - ends[0] or 1.0)
    scale = _colors(np.linspace(0, 1, 256))[np.newaxis]
    body = [
        f'<image href="{png_uri(_colored(shown, level))}" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<path d="{graticule(view)}" transform="translate(240 120) scale(120)" fill="none" '
        'stroke="#c8cedb" stroke-opacity=".3" stroke-width="1" vector-effect="non-scaling-stroke"/>',
        *(_label(view, 15.0 * hour, 0, f"{hour}h") for hour in (4, 8, 12, 16, 20)),
        *(_label(view, 359.9, dec, f"{dec:+d}°") for dec in (-60, -30, 30, 60)),
        f'<image href="{png_uri(scale)}" x="90" y="254" width="300" height="10" preserveAspectRatio="none"/>',
    ]
    for share in (0, 0.5, 1) if high > low else (0,):
        value = ends[0] + share * (ends[1] - ends[0])
        number = math.exp(value) if wide else value
        text = f"{number:,.0f}" if number >= 100 else f"{number:.2g}"
        body.append(f'<text x="{90 + 300 * share:g}" y="279">{text}</text>')
    return (
        f'<svg viewBox="0 0 {WIDTH} 302" role="img" aria-label="Map of the whole sky: {escape(title)}" '
        'font-size="13" text-anchor="middle" fill="var(--ink, #222222)">'
        f'{"".join(body)}<text x="240" y="296">{escape(title)}</text></svg>'
    )


def _label(view: View, ra: float, dec: float, text: str) -> str:
    (x,), (y,) = view.project(np.array([ra]), np.array([float(dec)]))
    # Below the line in the north, where the sky narrows above it.
    place = f'x="{240 + 120 * x + 4:.1f}" y="{120 - 120 * y + (12 if dec > 0 else -3):.1f}"'
    return f'<text {place} font-size="11" fill="#c8cedb" text-anchor="start">{text}</text>'


def _colored(shown: Cells, level: Floats) -> npt.NDArray[np.uint8]:
    """Return the pixels of a map, uint8 `[HEIGHT, WIDTH, 4]`.

    Args:
        shown: Cell of each pixel; -1 outside the sky.
        level: Level of each pixel's color, 0 to 1; NaN for the dark sky.
    """
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[shown >= 0] = (*_NIGHT, 255)
    some = np.isfinite(level)
    pixels[some, :3] = _colors(level[some])
    return pixels


def _colors(level: Floats) -> npt.NDArray[np.uint8]:
    """Return the colors of levels from 0 to 1, uint8 `[N, 3]`."""
    steps = np.linspace(0, 1, len(_COLORS))
    return np.stack([np.interp(level, steps, band) for band in _COLORS.T], axis=-1).astype(np.uint8)


def _counts(cells: Cells, shown: Cells, order: int) -> Cells:
    """Return the number of galaxies, whose cells are `cells`, in each cell of `shown`."""
    if order <= _COUNTED_AT_ONCE:
        return np.where(shown >= 0, np.bincount(cells, minlength=12 * 4**order)[shown], 0)
    found, counts = np.unique(cells, return_counts=True)
    if not len(found):
        return np.zeros_like(shown)
    place = np.minimum(np.searchsorted(found, shown), len(found) - 1)
    return np.where(found[place] == shown, counts[place], 0)


def circle(view: View, ra: float, dec: float, radius: float) -> str:
    """Return the edge of a cone as a path of SVG, where y grows downwards."""
    turn, angle = np.linspace(0, 2 * np.pi, 181), math.radians(radius)
    lat0 = math.radians(dec)
    lat = np.arcsin(math.sin(lat0) * math.cos(angle) + math.cos(lat0) * math.sin(angle) * np.cos(turn))
    lon = np.arctan2(
        np.sin(turn) * math.sin(angle) * math.cos(lat0), math.cos(angle) - math.sin(lat0) * np.sin(lat)
    )
    return _path(*view.project((ra + np.degrees(lon)) % 360, np.degrees(lat)))


def graticule(view: View) -> str:
    """Return lines of right ascension and declination as a path of SVG."""
    across = 360.0 if view.radius is None else min(4.5 * view.radius, 360.0)
    step = next((s for s in (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30) if across / s <= 13), 30)
    tall = 90.0 if view.radius is None else 1.1 * view.radius
    low, high = max(view.dec - tall, -90), min(view.dec + tall, 90)
    # Toward a pole, meridians are closer than they are numbered.
    wide = min(across / 2 / max(math.cos(math.radians(view.dec)), 0.05), 180)
    step_ra = next((s for s in (step, 5 * step, 10 * step, 30.0) if 2 * wide / s <= 25), 30.0)
    paths = []
    for lat in _multiples(low, high, step):
        lon = np.linspace(view.ra - wide, view.ra + wide - 1e-6, 91)
        paths.append(_path(*view.project(lon, np.full(91, lat))))
    for lon_line in _multiples(view.ra - wide, view.ra + wide, step_ra):
        # Just short of the map's edge, which would else be drawn on the other side.
        edge = min(lon_line, view.ra + wide - 1e-6)
        paths.append(_path(*view.project(np.full(61, edge), np.linspace(low, high, 61))))
    return "".join(paths)


def cells_of(ra: Floats, dec: Floats) -> Cells:
    """Return the HEALPix cells, of order `CELL_ORDER`, of positions in degrees, `[N]`; -1 for no position."""
    return healpix_cells(ra, dec, CELL_ORDER)


@lru_cache(maxsize=8)
def _cells_of(view: View) -> Cells:
    """Return the HEALPix cell of each pixel of the picture, `[HEIGHT, WIDTH]`; -1 outside the sky."""
    x = (np.arange(WIDTH) + 0.5) / WIDTH * 4 - 2
    y = 1 - (np.arange(HEIGHT) + 0.5) / HEIGHT * 2
    ra, dec = view.unproject(*np.meshgrid(x, y))
    return healpix_cells(ra.ravel(), dec.ravel(), view.order).reshape(HEIGHT, WIDTH)


def _mollweide_angle(lat: Floats) -> Floats:
    """Solve 2 t + sin 2 t = pi sin(lat) for the auxiliary angle t by Newton's method."""
    theta = lat.copy()
    for _ in range(20):
        slope = np.maximum(2 + 2 * np.cos(2 * theta), 1e-9)
        theta -= (2 * theta + np.sin(2 * theta) - np.pi * np.sin(lat)) / slope
        theta = np.clip(theta, -np.pi / 2, np.pi / 2)
    return theta


def _multiples(low: float, high: float, step: float) -> Iterator[float]:
    for number in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        yield number * step


def _path(x: Floats, y: Floats) -> str:
    """Return a line as a path of SVG, broken where it crosses the edge of the map."""
    words, last = [], math.nan
    for left, up in zip(x.tolist(), y.tolist(), strict=True):
        if math.isnan(left) or abs(left) > 4 or abs(up) > 4:
            last = math.nan
            continue
        words.append(f"{'L' if abs(left - last) < 1 else 'M'}{left:.3f} {-up:.3f}")
        last = left
    return "".join(words)
