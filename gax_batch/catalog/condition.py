"""A condition that selects galaxies: one SQL expression over the columns of the catalog.

DuckDB parses and evaluates it. In between, its syntax tree is checked: only some kinds of nodes, some
functions and the names of columns are allowed. No expression can therefore reach a file, another table, a
setting or the clock. The database that evaluates it is also locked: it has no files, network or extensions.
"""

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gax_batch.errors import UsageError
from gax_batch.system.disk_database import QueryError, Scratch

# fmt: off
FUNCTIONS = frozenset({
    "!~~", "!~~*", "%", "&", "*", "**", "+", "-", "/", "//", "<<", ">>", "^", "|", "~~", "~~*", "~~~",
    "abs", "acos", "asin", "atan", "atan2", "cbrt", "ceil", "ceiling", "contains", "cos", "degrees",
    "ends_with", "exp", "floor", "greatest", "isfinite", "isinf", "isnan", "least", "length",
    "like_escape", "ln", "log", "log10", "log2", "lower", "not_like_escape", "pi", "pow", "power",
    "prefix", "radians", "regexp_full_match", "regexp_matches", "round", "sign", "sin", "sqrt",
    "starts_with", "suffix", "tan", "trunc", "upper", "xor",
})
# fmt: on
"""Functions that an expression may call, by their names in DuckDB. `~~` is LIKE, `~~~` is GLOB."""

_CLASSES = frozenset(
    {"COLUMN_REF", "CONSTANT", "COMPARISON", "CONJUNCTION", "OPERATOR", "BETWEEN", "CASE", "CAST", "FUNCTION"}
)
_SELECT = "SELECT row FROM rows WHERE "
_MAX_LENGTH = 10_000
_SHOWN = 5


class Condition:
    """An expression that has been checked and can be evaluated on rows."""

    def __init__(self, text: str, schema: pa.Schema, scratch: Scratch) -> None:
        """Parse an expression.

        Args:
            text: The expression, such as `t01_smooth_or_features_a01_smooth_prob > 0.8 AND dec > 0`.
            schema: The columns that the expression may name.
            scratch: A database for this condition alone. It is locked.

        Raises:
            UsageError: The text is not an expression, is not allowed, or names an unknown column.
        """
        self._text = text
        # The text that was checked is the text that runs.
        self._sql = _SELECT + text
        self._scratch = scratch
        scratch.lock()
        names = list(dict.fromkeys(_columns(self._tree(), text)))
        for name in names:
            if name not in schema.names:
                # DuckDB takes double quotes for a name, as SQL does.
                hint = (
                    f"write text in single quotes: '{name}'"
                    if f'"{name}"' in text
                    else nearest(name, schema.names)
                )
                raise UsageError(f"the condition names {name!r}, which is not a column; {hint}")
        self.columns: tuple[str, ...] = tuple(names)
        self.filter(schema.empty_table())

    def filter(self, rows: pa.Table) -> pa.Table:
        """Return the rows for which the expression is true, in their order.

        Raises:
            UsageError: The expression cannot be evaluated (text compared with a number).
        """
        return rows.take(self.places(rows))

    def places(self, rows: pa.Table) -> pa.ChunkedArray:
        """Return the indices, int64, ascending, of the rows for which the expression is true.

        Raises:
            UsageError: The expression cannot be evaluated (text compared with a number).
        """
        numbers = pa.array(np.arange(len(rows)))
        asked = pa.table({"row": numbers} | {name: rows[name] for name in self.columns})
        try:
            self._scratch.replace("rows", asked)
            found = [batch["row"] for batch in self._scratch.stream(self._sql)]
        except QueryError as error:
            raise UsageError(f"the condition {self._text!r} cannot be evaluated: {error}") from None
        kept = pa.chunked_array([chunk for column in found for chunk in column.chunks], pa.int64())
        return pc.take(kept, pc.sort_indices(kept))

    def _tree(self) -> Any:
        """Return the syntax tree of the expression alone.

        Raises:
            UsageError: The text is not exactly one expression.
        """
        if not self._text.strip() or len(self._text) > _MAX_LENGTH:
            raise UsageError(f"a condition is one expression of up to {_MAX_LENGTH:,} characters")
        parsed, plain = self._serialized(self._sql), self._serialized(_SELECT + "true")
        if parsed.get("error"):
            raise UsageError(self._no_expression(str(parsed["error_message"])))
        tree = parsed["statements"][0]["node"].pop("where_clause", None)
        plain["statements"][0]["node"].pop("where_clause")
        if tree is None or parsed != plain:
            raise UsageError(f"the condition {self._text!r} is more than one expression over columns")
        return tree

    def _no_expression(self, reason: str) -> str:
        # DuckDB's own words for a statement that is not SELECT are about JSON, which nobody asked for.
        reason = "it is more than one statement" if "json" in reason.lower() else reason.splitlines()[0]
        return (
            f"the condition {self._text!r} is not an SQL expression over columns, such as "
            f"\"ra > 150 AND gz2_class = 'Er'\": {reason}"
        )

    def _serialized(self, sql: str) -> Any:
        try:
            found = self._scratch.one("SELECT json_serialize_sql($statement) AS tree", statement=sql) or {}
        except QueryError as error:
            raise UsageError(self._no_expression(str(error))) from None
        return json.loads(found["tree"])


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a hint for an unknown name: the known names that are similar, or have a similar word."""
    name = name.lower()
    begun = [whole for whole in known if whole.startswith(f"{name}_")] if name else []
    if begun:
        more = ", ..." if len(begun) > _SHOWN else ""
        return f"its columns are {', '.join(begun[:_SHOWN])}{more}; {name}_* means all of them"
    close = difflib.get_close_matches(name, known, n=3) or [
        whole for whole in known if difflib.get_close_matches(name, whole.split("_"), cutoff=0.75)
    ]
    return f"did you mean {', '.join(close[:3])}?" if close else f"there are {known[0]}, ..., {known[-1]}"


def _columns(node: Any, text: str) -> Iterator[str]:
    """Yield the columns that a syntax tree names.

    Raises:
        UsageError: The tree has a node that is not allowed.
    """
    if isinstance(node, list):
        for part in node:
            yield from _columns(part, text)
    if not isinstance(node, dict):
        return
    kind = node.get("class")
    if kind is not None and kind not in _CLASSES:
        raise UsageError(f"the condition {text!r} has a {kind.lower()}, which is not allowed")
    if kind == "FUNCTION" and (node["function_name"] not in FUNCTIONS or node["schema"] or node["catalog"]):
        raise UsageError(f"the condition {text!r} calls {node['function_name']!r}, which is not allowed")
    if kind == "COLUMN_REF":
        yield ".".join(node["column_names"])
    # The type of a cast is not an expression.
    yield from _columns([value for key, value in node.items() if key != "type_expr"], text)
