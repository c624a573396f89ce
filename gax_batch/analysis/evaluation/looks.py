"""Coverage and errors by the appearance of the galaxy in the image: size, brightness and sharpness.

Images of the challenge are scaled to the size of the galaxy. "Size" is therefore how far its light extends
within the cutout, and a galaxy that is small on the sky has a blurred image.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gax_batch import gz2
from gax_batch.analysis.evaluation.metrics import Cells
from gax_batch.models import appearance

Doubles = npt.NDArray[np.float64]
FIFTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
NOTE = (
    "Size is how far the galaxy's light extends in the image, brightness its total light, sharpness that at "
    "the scale of one pixel. All fifths are equally large, from the small, faint or blurred galaxies "
    "(1) to the large, bright or sharp ones (5)."
)
# The statistic of each look, and whether it increases (1) or decreases (-1) with it: the light of a large
# galaxy is farther from the center.
_STATISTICS = {"size": ("light_middle", -1), "brightness": ("brightness", 1), "sharpness": ("sharpness", 1)}


def measure(cutouts: npt.NDArray[np.uint8]) -> dict[str, Doubles]:
    """Measure the looks of cutouts.

    Args:
        cutouts: uint8 `[N, 64, 64, 3]`, RGB.

    Returns:
        `size`, `brightness` and `sharpness`, float64 `[N]`, natural logarithms. `size` is that of the total
        light divided by the light within 8 pixels of the center. For the others see `appearance.STATISTICS`.
    """
    places = {statistic.name: index for index, statistic in enumerate(appearance.STATISTICS)}
    measured = appearance.measure(cutouts)
    return {look: sign * measured[:, places[name]] for look, (name, sign) in _STATISTICS.items()}


def by_fifth(cells: Cells, found: Mapping[str, Doubles]) -> dict[str, list[dict[str, Any]]]:
    """Return coverage, width and RMSE by fifth of the galaxies.

    Args:
        cells: Intervals and labels of N galaxies.
        found: Result of `measure` on their images, float64 `[N]` by look.

    Returns:
        By look, the summaries of `Cells.groups` by rank over N, from the smallest, faintest or least sharp
        galaxies on.
    """
    everywhere = np.ones(gz2.N_ANSWERS, bool)
    result = {}
    for look, values in found.items():
        ranks = np.argsort(np.argsort(values, kind="stable")) / len(values)
        result[look] = cells.groups(ranks[:, None], FIFTHS, everywhere)
    return result


def table(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the header and the rows of a table of the result of `by_fifth`."""
    rows: list[tuple[str, ...]] = [
        ("image", "fifth", "fractions", "RMSE", "coverage", "where asked", "width", "width where asked")
    ]
    keys = {"rmse": ".4f", "coverage": ".1%", "coverage_asked": ".1%", "width": ".3f", "width_asked": ".3f"}
    for look, groups in found.items():
        for group in groups:
            numbers = (f"{group.get(key, math.nan):{form}}" for key, form in keys.items())
            rows.append((look, fifth(group), f"{group['fractions']:,}", *numbers))
    return rows


def fifth(group: Mapping[str, Any]) -> str:
    """Return the number of a group's fifth, 1 to 5."""
    return str(round(5 * group["to"]))
