"""Filters of galaxies: the fields of a form, and the expression that combines them."""

import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

from gax_batch import gz2
from gax_batch.catalog.schema import Flag
from gax_batch.errors import UsageError
from gax_batch.imaging.cutout import ImageFlag

FLAGS: dict[str, int] = {(bit.name or "").lower(): bit.value for bit in sorted([*ImageFlag, *Flag])}
MEASURES: dict[str, str] = {
    "width": "width of the 90 % interval",
    "std": "spread over posterior draws",
    "entropy": "entropy of the question, nats",
    "mutual_info": "mutual information of the question, nats",
    "ood": "out-of-distribution score",
}
"""Measures of uncertainty. The first two are of the answer, the next two of its question."""
ORDERS: dict[str, str] = {
    "catalog": "as in the catalog",
    "most_probable": "most probable first",
    "least_probable": "least probable first",
    "most_uncertain": "most uncertain first",
    "least_uncertain": "least uncertain first",
}
_CHOICES: dict[str, Mapping[str, object]] = {
    "answer": dict.fromkeys(gz2.ANSWERS),
    "measure": MEASURES,
    "order": ORDERS,
}
_RANGES = {
    "prob_min": (0.0, 1.0),
    "prob_max": (0.0, 1.0),
    "measure_min": (0.0, math.inf),
    "measure_max": (0.0, math.inf),
    "ra": (0.0, 360.0),
    "dec": (-90.0, 90.0),
    "radius": (0.0, 180.0),
}
_SIGN = re.compile(r"[!%_]")


@dataclass(frozen=True, slots=True)
class Filters:
    """The fields of the form. None or an empty text means no restriction.

    Attributes:
        answer: One of `gz2.ANSWERS`, to which the limits of probability and uncertainty apply.
        prob_min: Minimum expected fraction of the answer.
        prob_max: Maximum expected fraction of the answer.
        measure: One of `MEASURES`.
        measure_min: Minimum uncertainty by that measure.
        measure_max: Maximum uncertainty by that measure.
        ra: Right ascension of the center of a cone, degrees.
        dec: Declination of the center of a cone, degrees.
        radius: Radius of the cone, degrees.
        id: Identifiers, separated by commas. `*` stands for any characters.
        where: An expression over columns, as for `gax publish --where`.
        order: One of `ORDERS`.
        flags: Whether each named flag must be set. Other flags do not matter.
    """

    answer: str = gz2.ANSWERS[0]
    prob_min: float | None = None
    prob_max: float | None = None
    measure: str = "width"
    measure_min: float | None = None
    measure_max: float | None = None
    ra: float | None = None
    dec: float | None = None
    radius: float | None = None
    id: str = ""
    where: str = ""
    order: str = "catalog"
    flags: tuple[tuple[str, bool], ...] = ()

    @classmethod
    def parse(cls, values: Mapping[str, str]) -> "Filters":
        """Read the fields of a form. `flag_NAME` is `with` or `without`.

        Raises:
            UsageError: A field is unknown, a value is out of range, or a cone is incomplete.
        """
        flags: list[tuple[str, bool]] = []
        known: dict[str, str | float] = {}
        for name, text in values.items():
            kind, _, flag = name.partition("_")
            if text.strip() == "":
                continue
            if kind == "flag" and flag in FLAGS and text in ("with", "without"):
                flags.append((flag, text == "with"))
            elif name in _RANGES:
                known[name] = _number(name, text)
            elif name in _CHOICES and text in _CHOICES[name]:
                known[name] = text
            elif name in ("id", "where"):
                known[name] = text.strip()
            else:
                raise UsageError(f"{name} = {text[:60]!r} is not a filter; use the fields of the form")
        cone = [name for name in ("ra", "dec", "radius") if name in known]
        if len(cone) in (1, 2):
            raise UsageError("a cone on the sky needs all of ra, dec and radius, in degrees")
        return cls(**known, flags=tuple(flags))  # type: ignore[arg-type]

    @property
    def question(self) -> gz2.Question:
        """The question of the answer."""
        column = gz2.ANSWERS.index(self.answer)
        return next(q for q in gz2.QUESTIONS if q.start <= column < q.stop)

    @property
    def terms(self) -> tuple[str, ...]:
        """The one column that is the measure of uncertainty, or the two whose difference is."""
        return {
            "width": (f"{self.answer}_hi", f"{self.answer}_lo"),
            "std": (f"{self.answer}_std",),
            "entropy": (f"{self.question.name}_entropy",),
            "mutual_info": (f"{self.question.name}_mutual_info",),
            "ood": ("ood_score",),
        }[self.measure]

    def expression(self) -> str | None:
        """The condition in SQL over the catalog's columns; None for all galaxies."""
        return " AND ".join(self._conditions()) or None

    def python(self, catalog: str, version: int) -> str:
        """Return one line of Python that gives the same galaxies as a pandas data frame in the same order."""
        where = self.expression()
        asked = "" if where is None else f"where={where!r}"
        line = f"import gax_batch; gax_batch.open_catalog({catalog!r}, {version}).to_pandas({asked})"
        if self.order == "catalog":
            return line
        ascending = self.order.startswith("least")
        column = f"{self.answer}_prob"
        if self.order.endswith("uncertain"):
            column = self.terms[0]
            if len(self.terms) > 1:
                first, second = self.terms
                line += f".assign(width=lambda rows: rows[{first!r}] - rows[{second!r}])"
                column = "width"
        return f"{line}.sort_values({column!r}, ascending={ascending})"

    def command(self, catalog: str, version: int) -> str:
        """Return the shell command that publishes the same galaxies."""
        words = ["gax", "publish", "--catalog", catalog, "--version", str(version)]
        words += ["--format", "votable", "--output", "galaxies.vot"]
        where = self.expression()
        return shlex.join(words + (["--where", where] if where else []))

    def _conditions(self) -> Iterator[str]:
        yield from _bounds(f"{self.answer}_prob", self.prob_min, self.prob_max)
        yield from _bounds(" - ".join(self.terms), self.measure_min, self.measure_max)
        for flag, there in self.flags:
            yield f"flags & {FLAGS[flag]} {'<>' if there else '='} 0"
        if self.ra is not None and self.dec is not None and self.radius is not None:
            yield cone(self.ra, self.dec, self.radius)
        if self.id:
            yield _named(self.id)
        if self.where:
            # A line break ends a comment in the expression.
            yield f"({self.where}\n)" if "--" in self.where else f"({self.where})"


def cone(ra: float, dec: float, radius: float) -> str:
    """Return the condition for a cone, all arguments in degrees, by the haversine formula."""
    across = f"cos(radians(dec)) * cos(radians({dec!r})) * pow(sin(radians(ra - {ra!r}) / 2), 2)"
    haversine = f"pow(sin(radians(dec - {dec!r}) / 2), 2) + {across}"
    return f"2 * degrees(asin(sqrt(least(1, {haversine})))) <= {radius!r}"


def any_of(ids: Sequence[str]) -> str:
    """Return the condition for galaxies of these identifiers."""
    return f"galaxy_id IN ({', '.join(map(_text, ids))})"


def _bounds(quantity: str, low: float | None, high: float | None) -> Iterator[str]:
    if low is not None:
        yield f"{quantity} >= {low!r}"
    if high is not None:
        yield f"{quantity} <= {high!r}"


def _named(text: str) -> str:
    ids = [name.strip() for name in text.split(",") if name.strip()]
    # Escape the special characters of LIKE.
    patterns = [_SIGN.sub(r"!\g<0>", name).replace("*", "%") for name in ids if "*" in name]
    globs = [f"galaxy_id LIKE {_text(pattern)} ESCAPE '!'" for pattern in patterns]
    whole = [name for name in ids if "*" not in name]
    either = [*globs, *([any_of(whole)] if whole else [])]
    return f"({' OR '.join(either)})" if either else "false"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _number(name: str, text: str) -> float:
    low, high = _RANGES[name]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and low <= value <= high):
        limit = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
        raise UsageError(f"{name.replace('_', ' ')} is {text[:60]!r}, which is not a number {limit}")
    return value


FIELDS: tuple[str, ...] = (
    *(field.name for field in fields(Filters) if field.name != "flags"),
    *(f"flag_{name}" for name in FLAGS),
)
"""The names of the form's fields."""
