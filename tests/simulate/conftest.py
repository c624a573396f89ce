import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from gax_batch.simulate.population import Kind, Population

PLAIN = {
    "kind": Kind.DISK, "magnitude": 16, "pixel_scale": 0.5, "seeing": 2.5, "x": 31.5, "y": 31.5,
    "half_light_radius": 6, "sersic_n": 2, "bulge_radius": 3, "bulge_axis_ratio": 1, "disk_radius": 6,
    "axis_ratio": 1, "cos_inclination": 1, "disk_height": 1, "bar_length": 5, "ring_radius": 8,
}  # fmt: skip


def build(**changes: float) -> Population:
    names = [field.name for field in dataclasses.fields(Population)]
    values = {name: np.array([(PLAIN | changes).get(name, 0)], np.float32) for name in names}
    values |= {name: values[name].astype(np.int64) for name in ("kind", "n_arms")}
    return Population(**values)


@pytest.fixture(scope="session")
def galaxy() -> Callable[..., Population]:
    """Build one plain face-on disk in the middle of the frame, with properties changed by name."""
    return build
