"""How long, how fast and at which resolution each network is trained.

The convolutions are trained once, in the CNN-SVR. The Bayesian and the classic CNN take them over; the
Bayesian CNN learns how uncertain they are, and both train their dense layers on the trunk's features.

The trunks end in a global average pooling, so that they run on images of any size: most steps see
smaller images, which cost a quarter (32 pixels) or 9/16 (48 pixels) of the final 64, and the last ones
the full size (progressive resizing, Tan & Le 2021, ICML, section 4).
"""

import math
from dataclasses import dataclass, replace

from gax_batch.imaging import IMAGE_SIDE


@dataclass(frozen=True, slots=True)
class Stage:
    """Some of the training, at one resolution."""

    side: int
    """Pixels of the images."""
    steps: int

    @property
    def field(self) -> float:
        """Sky in the images, in final pixels.

        The geometric mean of all of the cutout (galaxies would look half as large as they finally do)
        and of its center at the final scale (their outskirts would be missing).
        """
        return math.sqrt(IMAGE_SIDE * self.side)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One network's training.

    Attributes:
        stages: one after the other, under one learning rate schedule.
        learning_rate: the largest; reached after the first 5 % of steps, then down a cosine to 0.
        voted: galaxies with votes in a batch.
        facts: galaxies of which only the clear class is known in a batch.
        fact_weight: what their mean loss weighs beside the mean loss of the votes.
        temperature: weight of the divergence from the prior, per training example (`losses.kl_weight`).
        deviations: train nothing but the deviations of the convolutions' posterior.
    """

    stages: tuple[Stage, ...]
    learning_rate: float
    voted: int = 10
    facts: int = 6
    fact_weight: float = 10.0
    temperature: float = 0.0
    deviations: bool = False

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)

    def scaled(self, factor: float) -> "Recipe":
        """The same for `factor` times as many steps, at least one per stage."""
        stages = tuple(Stage(s.side, max(1, round(s.steps * factor))) for s in self.stages)
        return replace(self, stages=stages)


@dataclass(frozen=True, slots=True)
class DenseRecipe:
    """The training of a network's dense layers on features of its trunk.

    Attributes:
        learning_rate: the largest, at the first step.
        steps: in all.
        temperature: weight of the divergence from the prior, per training example.
        decay: weight of the sum of squares of the kernels.
        voted: galaxies with votes in a batch.
        facts: galaxies of which only the clear class is known in a batch.
        fact_weight: what their mean loss weighs beside the mean loss of the votes.
        sharpness: of `losses.fact_loss`.
    """

    learning_rate: float
    steps: int = 4000
    temperature: float = 0.0
    decay: float = 0.0
    voted: int = 128
    facts: int = 128
    fact_weight: float = 10.0
    sharpness: float = 25.0

    def scaled(self, factor: float) -> "DenseRecipe":
        """The same for `factor` times as many steps, at least one."""
        return replace(self, steps=max(1, round(self.steps * factor)))


RECIPES = {
    "svr": Recipe((Stage(32, 1500), Stage(48, 1200), Stage(64, 1000)), 2e-3),
    # At a temperature of 1 the evidence of a few hundred galaxies would leave the 369,000 weights of the
    # convolutions little but the prior (on fold 0 deviations of 0.2 of it alone cost an RMSE of 0.018).
    "bayesian": Recipe((Stage(64, 150),), 2e-2, temperature=0.05, deviations=True),
}
# Chosen on the development folds. Temperatures of 0.02, 0.1, 0.3, 2 and 4 did worse.
DENSE = {
    "bayesian": DenseRecipe(1e-3, temperature=1.0),
    "classic": DenseRecipe(2e-3, decay=0.06),
}
# What members of the ensemble take of the classic CNN's steps; half of them cost an RMSE of 0.0007 and
# 0.0008 on the development folds.
MEMBER_EFFORT = 0.5
# Without the simulated galaxies, as founded, but for as many steps as the trunk.
LITERAL = replace(RECIPES["svr"], voted=16, facts=0)


@dataclass(frozen=True, slots=True)
class Pretraining:
    """The first training of the trunk, on simulated galaxies."""

    galaxies: int
    recipe: Recipe


PRETRAINING = Pretraining(12_000, Recipe((Stage(32, 1200), Stage(48, 700)), 2e-3, voted=16, facts=0))
