"""A galaxy's tree: everything has its place, and its size is its number."""

import itertools
import re

import numpy as np

from gax_batch import gz2
from gax_batch.viewer.tree import WIDEST_BRANCH, lay_out


def row(seed: int = 0) -> dict[str, float | None]:
    rng = np.random.default_rng(seed)
    prob = gz2.cumulative(gz2.conditional(rng.uniform(0, 1, gz2.N_ANSWERS)))
    values = {"prob": prob, "std": prob / 10, "lo": prob / 2, "hi": np.minimum(prob * 1.5, 1)}
    return {f"{a}_{kind}": float(v[i]) for kind, v in values.items() for i, a in enumerate(gz2.ANSWERS)}


def test_every_answer_is_there_with_its_numbers():
    numbers = row()
    drawing = lay_out(numbers)
    found = sorted(answer.prob for question in drawing.questions for answer in question.answers)
    assert found == sorted(numbers[f"{answer}_prob"] for answer in gz2.ANSWERS)
    assert len(drawing.questions) == gz2.N_QUESTIONS
    likely = sum(answer.likely for question in drawing.questions for answer in question.answers)
    assert likely == gz2.most_likely(np.array([numbers[f"{a}_prob"] for a in gz2.ANSWERS])).sum()


def test_no_two_blocks_overlap_and_all_are_on_the_drawing():
    drawing = lay_out(row())
    for a, b in itertools.combinations(drawing.questions, 2):
        assert a.x != b.x or a.y + a.height < b.y or b.y + b.height < a.y
    assert all(q.y >= 0 and q.y + q.height <= drawing.height for q in drawing.questions)
    assert all(q.x >= 0 and q.x + 280 <= drawing.width for q in drawing.questions)


def test_a_branch_leads_from_its_answer_to_its_question_and_is_as_wide_as_likely():
    numbers = row(3)
    drawing = lay_out(numbers)
    children = [q for q in gz2.QUESTIONS if q.parent is not None]
    assert len(drawing.branches) == len(children)
    ends = {}
    for branch in drawing.branches:
        x, y = map(float, re.fullmatch(r".* ([\d.]+) ([\d.]+)", branch.path).groups())
        ends[x, y] = branch.width
    for question in children:
        block = next(q for q in drawing.questions if q.label == f"{gz2.in_words(question.name)}?")
        reach = numbers[f"{gz2.ANSWERS[question.parent]}_prob"]
        assert ends[block.x, block.y + 15] == round(max(reach * WIDEST_BRANCH, 0.75), 2)
        assert block.reach == reach


def test_a_galaxy_without_numbers_is_drawn_without_them():
    drawing = lay_out(dict.fromkeys(row()))
    assert all(answer.prob is None for question in drawing.questions for answer in question.answers)
