import math

import pytest

from training.recipe import DENSE, RECIPES, TrainingStage


def test_recipes_can_be_scaled():
    half = RECIPES["svr"].scaled(0.5)
    assert half.steps == pytest.approx(RECIPES["svr"].steps / 2, abs=3)
    assert RECIPES["svr"].scaled(1e-9).steps == len(half.stages)
    assert DENSE["classic"].scaled(0.5).steps == DENSE["classic"].steps / 2
    assert DENSE["classic"].scaled(1e-9).steps == 1


def test_a_smaller_image_shows_more_sky_at_a_coarser_scale():
    assert TrainingStage(64, 1).field == 64
    assert TrainingStage(32, 1).field == pytest.approx(math.sqrt(32 * 64))
    assert TrainingStage(96, 1, 64.0).field == 64
    assert [TrainingStage(side, 1).halved for side in (32, 48, 64)] == [True, False, False]


@pytest.mark.parametrize("recipe", [*RECIPES.values(), *DENSE.values()])
def test_every_kind_of_label_is_in_each_batch(recipe):
    assert len(recipe.counts) == 5
    assert min(recipe.counts) > 0
    assert 0 <= recipe.teacher_share < 1
