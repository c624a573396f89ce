"""A galaxy's tree: every line has its place and its numbers."""

import itertools

import numpy as np

from gax_batch import gz2
from gax_batch.viewer.tree import lay_out


def row(seed: int = 0) -> dict[str, float | None]:
    rng = np.random.default_rng(seed)
    prob = gz2.cumulative(gz2.conditional(rng.uniform(0, 1, gz2.N_ANSWERS)))
    values = {"prob": prob, "std": prob / 10, "lo": prob / 2, "hi": np.minimum(prob * 1.5, 1)}
    return {f"{a}_{kind}": float(v[i]) for kind, v in values.items() for i, a in enumerate(gz2.ANSWERS)}


def test_every_answer_is_there_with_its_numbers():
    numbers = row()
    lines = lay_out(numbers)
    answers = {line.column: line for line in lines if line.column is not None}
    assert sorted(answers) == list(range(gz2.N_ANSWERS))
    assert len(lines) == gz2.N_QUESTIONS + gz2.N_ANSWERS
    for column, line in answers.items():
        found = dict(prob=line.prob, std=line.std, lo=line.lo, hi=line.hi)
        assert found == {kind: numbers[f"{gz2.ANSWERS[column]}_{kind}"] for kind in found}
    likely = gz2.most_likely(np.array([numbers[f"{a}_prob"] for a in gz2.ANSWERS]))
    assert [answers[column].likely for column in range(gz2.N_ANSWERS)] == likely.tolist()


def test_no_two_lines_overlap_and_all_are_on_the_drawing():
    lines = lay_out(row())
    assert lines[0].y == 0
    assert all(below.y - above.y >= 1 for above, below in itertools.pairwise(lines))


def test_a_branch_leads_from_its_answer_to_its_question_and_is_as_wide_as_likely():
    numbers = row(3)
    lines = lay_out(numbers)
    answers = {line.column: line for line in lines if line.column is not None}
    blocks = {line.label: line for line in lines if line.column is None}
    for question in gz2.QUESTIONS:
        block = blocks[f"{gz2.in_words(question.name)}?"]
        if question.parent is None:
            assert (block.parent_y, block.reach, block.prefix) == (None, 1.0, "")
            continue
        parent = answers[question.parent]
        assert block.parent_y == parent.y < block.y
        assert block.reach == parent.prob
        assert len(block.prefix) == len(parent.prefix) + 2
        assert all(line.reach == block.reach for line in lines if line.column in question_columns(question))


def question_columns(question: gz2.Question) -> range:
    return range(question.start, question.stop)


def test_a_galaxy_without_numbers_is_drawn_without_them():
    lines = lay_out(dict.fromkeys(row()))
    assert len(lines) == gz2.N_QUESTIONS + gz2.N_ANSWERS
    assert all(line.prob is None for line in lines)
