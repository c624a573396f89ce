"""The Galaxy Zoo 2 decision tree: 11 questions, 37 answers, and the arithmetic between them.

A vector of 37 numbers is *cumulative* when an answer's value is the fraction of all volunteers who
gave it (as the Galaxy Zoo challenge publishes them), and *conditional* when it is the fraction of those
who were asked its question (as Hart et al. 2016 publish them).

Both can be *weighted* (votes for the image as it is) or *debiased* (corrected for what distance hides).
The catalog's fractions are cumulative and debiased, see `DEFINITION`.

Question names, order and answers are those of Willett et al. 2013, table 2, with the column names of Hart
et al. 2016.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from gax_batch.errors import UsageError

Float = TypeVar("Float", np.float32, np.float64)


@dataclass(frozen=True, slots=True)
class Question:
    """One question of the tree: its columns `start:stop` and the answer that leads to it."""

    name: str
    answers: tuple[str, ...]
    start: int
    parent: int | None
    letters: str

    @property
    def stop(self) -> int:
        """One past the question's last column."""
        return self.start + len(self.answers)

    @property
    def columns(self) -> slice:
        """The question's columns in a vector of 37 answers."""
        return slice(self.start, self.stop)


@dataclass(frozen=True, slots=True)
class Definition:
    """The definition of a set of fractions: a short name, and a phrase that stands alone in a sentence."""

    name: str
    description: str


# name, answers, 0-based parent column, letter of each answer in Willett et al. 2013's class string
_TABLE: tuple[tuple[str, tuple[str, ...], int | None, str], ...] = (
    ("t01_smooth_or_features", ("a01_smooth", "a02_features_or_disk", "a03_star_or_artifact"), None, "ESA"),
    ("t02_edgeon", ("a04_yes", "a05_no"), 1, "e "),
    ("t03_bar", ("a06_bar", "a07_no_bar"), 4, "B "),
    ("t04_spiral", ("a08_spiral", "a09_no_spiral"), 4, "  "),
    (
        "t05_bulge_prominence",
        ("a10_no_bulge", "a11_just_noticeable", "a12_obvious", "a13_dominant"),
        4,
        "dcba",
    ),
    ("t06_odd", ("a14_yes", "a15_no"), None, "  "),
    ("t07_rounded", ("a16_completely_round", "a17_in_between", "a18_cigar_shaped"), 0, "ric"),
    (
        "t08_odd_feature",
        (
            "a19_ring",
            "a20_lens_or_arc",
            "a21_disturbed",
            "a22_irregular",
            "a23_other",
            "a24_merger",
            "a38_dust_lane",
        ),
        13,
        "rldiomu",
    ),
    ("t09_bulge_shape", ("a25_rounded", "a26_boxy", "a27_no_bulge"), 3, "rbn"),
    ("t10_arms_winding", ("a28_tight", "a29_medium", "a30_loose"), 7, "tml"),
    (
        "t11_arms_number",
        ("a31_1", "a32_2", "a33_3", "a34_4", "a36_more_than_4", "a37_cant_tell"),
        7,
        "1234+?",
    ),
)


def _questions() -> tuple[Question, ...]:
    questions: list[Question] = []
    start = 0
    for name, answers, parent, letters in _TABLE:
        questions.append(Question(name, answers, start, parent, letters))
        start += len(answers)
    return tuple(questions)


QUESTIONS: tuple[Question, ...] = _questions()
QUESTION_NAMES: tuple[str, ...] = tuple(q.name for q in QUESTIONS)
ANSWERS: tuple[str, ...] = tuple(f"{q.name}_{a}" for q in QUESTIONS for a in q.answers)
N_QUESTIONS = len(QUESTIONS)
N_ANSWERS = len(ANSWERS)
DEFINITION = Definition(
    "debiased",
    "fraction of all volunteers who would give the answer if the galaxy were nearby, as in the Galaxy Zoo "
    "challenge (cumulative; debiased as by Willett et al. 2013)",
)
"""The definition of the catalog's 37 fractions. The manifest of a bundle has its own, under `definition`."""

HART16_COLUMNS: tuple[str, ...] = tuple(f"{a}_weighted_fraction" for a in ANSWERS)
CHALLENGE_COLUMNS: tuple[str, ...] = tuple(
    f"Class{i}.{j}" for i, q in enumerate(QUESTIONS, 1) for j in range(1, len(q.answers) + 1)
)
# Parents come before their children in this order, although question 6's children do not follow it.
TOPOLOGICAL: tuple[int, ...] = (0, 1, 5, 6, 2, 3, 4, 8, 7, 9, 10)
# Index of each answer's question.
QUESTION_OF = np.repeat(np.arange(N_QUESTIONS), [len(q.answers) for q in QUESTIONS])
# For each answer, the column of the answer that leads to its question, or -1.
_PARENT_OF = np.array([-1 if q.parent is None else q.parent for q in QUESTIONS for _ in q.answers])


def find_question(name: str) -> Question:
    """Return the question of a name or of its beginning, such as `t04`.

    Raises:
        UsageError: No question has that name. The message suggests the nearest one.
    """
    found = [q for q in QUESTIONS if q.name == name or q.name.startswith(f"{name}_")]
    if found:
        return found[0]
    nearest = difflib.get_close_matches(name, QUESTION_NAMES, n=1, cutoff=0)[0]
    raise UsageError(f"no question is named '{name}'; did you mean '{nearest}'?")


# Answer to the first question that ends the class string.
_STAR = 2

_WORDS = {"edgeon": "edge-on", "cant tell": "can't tell"}


def in_words(name: str) -> str:
    """Return the name of a question or answer as plain words: `edge-on` for `t02_edgeon`."""
    words = name.partition("_")[2].replace("_", " ")
    return _WORDS.get(words, words)


def cumulative(conditional: npt.NDArray[Float]) -> npt.NDArray[Float]:
    """Multiply conditional fractions down the tree.

    Args:
        conditional: Conditional fractions, float `[..., 37]`. The answers of each question sum to 1.

    Returns:
        Cumulative fractions `[..., 37]` of the same dtype. The answers of each question sum to the value of
        its parent answer.
    """
    out = np.array(conditional, copy=True)
    for index in TOPOLOGICAL:
        question = QUESTIONS[index]
        if question.parent is not None:
            out[..., question.columns] *= out[..., question.parent, None]
    return out


def conditional(cumulative: npt.NDArray[Float]) -> npt.NDArray[Float]:
    """Divide each question's answers by their sum: the inverse of `cumulative` where that is possible.

    A question that nobody reached (its answers sum to zero) does not have conditional fractions. It gets
    equal ones, so that the result is always one probability vector per question.

    Args:
        cumulative: Cumulative fractions, float `[..., 37]`, non-negative.

    Returns:
        Conditional fractions `[..., 37]` of the same dtype. The answers of each question sum to 1.
    """
    out = np.array(cumulative, copy=True)
    for question in QUESTIONS:
        block = out[..., question.columns]
        total = block.sum(axis=-1, keepdims=True)
        reached = total > 0
        even = np.full_like(block, 1.0 / len(question.answers))
        out[..., question.columns] = np.where(reached, block / np.where(reached, total, 1), even)
    return out


def parents(cumulative: npt.NDArray[Float]) -> npt.NDArray[Float]:
    """Return the value of each answer's parent: the fraction of all volunteers who were asked its question.

    Args:
        cumulative: Cumulative fractions, float `[..., 37]`.

    Returns:
        Fractions `[..., 37]` of the same dtype: 1 for questions that everybody is asked.
    """
    return np.where(_PARENT_OF < 0, np.ones(1, cumulative.dtype), cumulative[..., _PARENT_OF])


def most_likely(cumulative: npt.NDArray[Float]) -> npt.NDArray[np.bool_]:
    """Return whether each answer is on the most likely path through the tree.

    An answer is on the path if it and all answers that lead to it have the largest fraction of their
    question.

    Args:
        cumulative: Cumulative fractions, float `[..., 37]`. Of equal answers the first one counts.

    Returns:
        bool `[..., 37]`: one answer for each question on the path.
    """
    out = np.zeros(cumulative.shape, bool)
    for index in TOPOLOGICAL:
        question = QUESTIONS[index]
        block = cumulative[..., question.columns]
        wins = np.arange(len(question.answers)) == np.argmax(block, axis=-1)[..., None]
        reached = True if question.parent is None else out[..., question.parent, None]
        out[..., question.columns] = wins & reached
    return out


def inconsistency(cumulative: npt.NDArray[Float]) -> float:
    """Return the largest violation of the tree's sums in `[..., 37]`: |sum of answers - parent's value|."""
    worst = 0.0
    for question in QUESTIONS:
        total = cumulative[..., question.columns].sum(axis=-1)
        expected = 1.0 if question.parent is None else cumulative[..., question.parent]
        worst = max(worst, float(np.max(np.abs(total - expected), initial=0.0)))
    return worst


def gz2_class(cumulative: npt.NDArray[Float]) -> list[str]:
    """Return the class string of Willett et al. 2013 (appendix A): the most likely path through the tree.

    `Er Ei Ec` are smooth galaxies, `Ser Seb Sen` edge-on disks, `S[B]{d,c,b,a}` other disks with the
    number (`1234+?`) and winding (`tml`) of their arms if spiral, `A` stars and artifacts. An odd
    feature follows in parentheses. Hart et al. 2016's debiased fractions give the published strings;
    weighted fractions give only about half of them.

    Args:
        cumulative: Cumulative or conditional fractions, float `[N, 37]`. Of equal answers the first one
            counts.

    Returns:
        N class strings.
    """
    return [_class_string(row) for row in _winners(cumulative).tolist()]


def gz2_class_margin(cumulative: npt.NDArray[Float]) -> npt.NDArray[Float]:
    """Return how far each galaxy's `gz2_class` is from another class string.

    At each question that decides a letter of the string, the margin is the fraction of the winning answer
    minus that of the second, among the volunteers who are asked the question. The galaxy's margin is the
    smallest of these: the string stays the same unless a fraction changes by half of it.
    The string of a star or artifact is `A` whatever odd features it has, so only the first question counts.

    Args:
        cumulative: Cumulative or conditional fractions, float `[N, 37]`.

    Returns:
        Margins `[N]` of the same dtype, from 0 (another answer is as likely) to 1 (all volunteers agree).
        Also 0 where the path reaches a question that nobody is asked.
    """
    fractions = conditional(cumulative)
    winners = _winners(cumulative)
    margin = np.ones(len(fractions), fractions.dtype)
    for index, question in enumerate(QUESTIONS):
        ranked = np.sort(fractions[:, question.columns], axis=1)
        margin = np.where(_decides(index, winners), np.minimum(margin, ranked[:, -1] - ranked[:, -2]), margin)
    return margin


def _winners(fractions: npt.NDArray[Float]) -> npt.NDArray[np.intp]:
    """Return the most likely answer of each question, `[N, 11]`, from cumulative or conditional fractions."""
    return np.stack([np.argmax(fractions[:, q.columns], axis=1) for q in QUESTIONS], axis=1)


def _decides(index: int, winners: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Return whether a question has a letter in each galaxy's class string, `[N]`."""
    parent = QUESTIONS[index].parent
    if parent is None:
        return np.full(len(winners), True) if index == 0 else winners[:, 0] != _STAR
    above = next(i for i, q in enumerate(QUESTIONS) if q.start <= parent < q.stop)
    leads: npt.NDArray[np.bool_] = winners[:, above] == parent - QUESTIONS[above].start
    return leads & _decides(above, winners)


def _class_string(winner: Sequence[int]) -> str:
    def letter(question: int) -> str:
        return QUESTIONS[question].letters[winner[question]].strip()

    if winner[0] == _STAR:
        return "A"
    if winner[0] == 0:
        text = "E" + letter(6)
    elif winner[1] == 0:
        text = "Se" + letter(8)
    else:
        text = "S" + letter(2) + letter(4)
        if winner[3] == 0:
            text += letter(10) + letter(9)
    if winner[5] == 0:
        text += f"({letter(7)})"
    return text
