"""Length, learning rate and resolution of each network's training.

The networks end in a global average pooling, so that they accept images of any size. Most steps use smaller
images, which cost a quarter (32 pixels) or 9/16 (48 pixels) of the final 64, and the last ones the full size
(progressive resizing, Tan & Le 2021, ICML, section 4).
"""

import math
from dataclasses import dataclass, replace

from gax_batch.imaging.cutout import IMAGE_SIDE


@dataclass(frozen=True, slots=True)
class TrainingStage:
    """A part of the training, at one resolution."""

    side: int
    """Side of the images in pixels."""
    steps: int
    sky: float | None = None
    """Extent of sky in the images, in pixels of a cutout; None for the default of `field`."""

    @property
    def halved(self) -> bool:
        """Whether the windows are first averaged to half of their resolution."""
        return self.side <= IMAGE_SIDE // 2

    @property
    def field(self) -> float:
        """Extent of sky in the images, in pixels of a cutout.

        The default is the geometric mean of the whole cutout (in which galaxies would look half as large as
        they finally do) and of its center at the final scale (without their outskirts).
        """
        return math.sqrt(IMAGE_SIDE * self.side) if self.sky is None else self.sky


@dataclass(frozen=True, slots=True)
class Recipe:
    """Training of one network.

    Attributes:
        stages: Stages in order, under one learning rate schedule.
        learning_rate: Maximum learning rate, reached after the first 2 % of steps. Then a cosine down to 0.
        counts: Galaxies in a batch with all of the challenge's fractions, with some of them, with Hart et
            al. 2016's fractions, with a clear class, and with none. The last two have the shares that they
            have among all galaxies.
        teacher_share: Weight of the teacher's fractions relative to the labels, 0 to 1.
        averaging: Decay of the average of the weights over the steps.
        decay: Weight of the sum of squares of the kernels.
        temperature: Weight of the divergence from the prior, per training example (`losses.kl_weight`).
        deviations: Train only the standard deviations of the convolutions' posterior.
        mixed: Compute in bfloat16 if that is faster.
    """

    stages: tuple[TrainingStage, ...]
    learning_rate: float
    counts: tuple[int, int, int, int, int]
    teacher_share: float = 0.0
    averaging: float = 0.998
    decay: float = 0.0
    temperature: float = 0.0
    deviations: bool = False
    mixed: bool = False

    @property
    def steps(self) -> int:
        """Number of steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def scaled(self, factor: float) -> "Recipe":
        """Return the same recipe with `factor` times as many steps, at least one per stage."""
        stages = tuple(replace(s, steps=max(1, round(s.steps * factor))) for s in self.stages)
        return replace(self, stages=stages)


@dataclass(frozen=True, slots=True)
class DenseRecipe:
    """Training of a network's dense layers on features of its trunk.

    Attributes:
        learning_rate: Maximum learning rate, at the first step.
        counts: As for `Recipe`.
        steps: Number of steps.
        teacher_share: As for `Recipe`.
        temperature: Weight of the divergence from the prior, per training example.
        decay: Weight of the sum of squares of the kernels.
    """

    learning_rate: float
    counts: tuple[int, int, int, int, int] = (12, 40, 12, 90, 102)
    steps: int = 6000
    teacher_share: float = 0.7
    temperature: float = 0.0
    decay: float = 0.0

    def scaled(self, factor: float) -> "DenseRecipe":
        """Return the same recipe with `factor` times as many steps, at least one."""
        return replace(self, steps=max(1, round(self.steps * factor)))


RECIPES = {
    "teacher": Recipe(
        (TrainingStage(96, 6000, 64.0), TrainingStage(128, 2000, 64.0)), 1e-3, (3, 11, 4, 22, 24), decay=5e-6
    ),
    "svr": Recipe(
        (TrainingStage(32, 4000), TrainingStage(48, 6000), TrainingStage(64, 10000)),
        3e-3,
        (3, 8, 3, 23, 27),
        0.7,
        decay=5e-6,
        mixed=True,
    ),
    "bayesian": Recipe(
        (TrainingStage(64, 400),),
        2e-2,
        (3, 8, 3, 23, 27),
        0.7,
        averaging=0.9,
        temperature=1.0,
        deviations=True,
    ),
}
DENSE = {
    "bayesian": DenseRecipe(1e-3, temperature=1.0),
    "classic": DenseRecipe(2e-3, decay=1e-4),
}
