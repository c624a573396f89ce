"""Types of settings, with their conversion from the command line and YAML and their validation.

Because `gax --help` loads this module, it imports larger modules only where a value is checked.
"""

import difflib
import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from gax_batch.models import ModelName

Edges = dict[str, tuple[float, ...]]
Panel = Literal["Input", "Catalog", "Models", "Resources", "Limits", "Output"]
PANELS = get_args(Panel)
Number = TypeVar("Number", int, float)

RAY_LEAST_STORE_MIB = 75
HIDDEN = ("input", "catalog", "positions", "bundle", "frame_index", "output", "images", "webhook")
"""Settings whose values are not repeated in a message, because they may hold a secret."""


def _without_secrets(value: str) -> str:
    """Refuse a URI that contains a secret, because URIs are written into plans, records and tables."""
    parts = urlsplit(value)
    # URIs of Azure contain container@account, which is not a secret.
    if parts.password or (parts.username and parts.scheme not in ("abfs", "abfss")):
        raise ValueError("contains credentials; provide them by the environment or the role of the machine")
    if parts.scheme in ("http", "https") and (parts.query or parts.fragment):
        raise ValueError("contains a query, which may be a signature; pass a plain URI")
    return value


def _is_variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError(
            "must be the name of an environment variable that holds the URL, which is a secret: "
            "export GAX_WEBHOOK=https://... and pass GAX_WEBHOOK"
        )
    return value


def _split_models(value: object) -> object:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    # The order has no meaning, so that the fingerprint of a catalog must not depend on it.
    return tuple(sorted(set(names))) if isinstance(names, (list, tuple)) else names


def _parse_percent(value: object) -> object:
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip().removesuffix("%")) / 100
        except ValueError:
            raise ValueError("must be a fraction such as 0.05, or percent such as 5%") from None
    return value


def _parse_bins(value: object) -> object:
    from gax_batch.catalog.sums import parse_edges

    return parse_edges(value) if isinstance(value, str) else value


def _check_bins(value: Edges) -> Edges:
    from gax_batch.catalog.schema import NUMERIC_COLUMNS
    from gax_batch.catalog.sums import are_edges

    for column, edges in value.items():
        if column not in NUMERIC_COLUMNS:
            nearest = difflib.get_close_matches(column, NUMERIC_COLUMNS, n=1, cutoff=0)[0]
            raise ValueError(f"'{column}' is not a numeric column of the catalog; did you mean '{nearest}'?")
        if not are_edges(edges):
            raise ValueError(f"the edges of '{column}' must be two or more increasing numbers")
    # The fingerprint of a catalog must not depend on the order.
    return dict(sorted(value.items()))


def _auto_or_at_least(least: int) -> Callable[[Literal["auto"] | Number], Literal["auto"] | Number]:
    def check(value: Literal["auto"] | Number) -> Literal["auto"] | Number:
        if not isinstance(value, str) and value < least:
            raise ValueError(f"must be 'auto' or at least {least}")
        return value

    return check


Uri = Annotated[str, AfterValidator(_without_secrets)]
Fraction = Annotated[float, Field(ge=0, le=1), BeforeValidator(_parse_percent)]
AutoCount = Annotated[Literal["auto"] | int, AfterValidator(_auto_or_at_least(1))]
AutoSeconds = Annotated[Literal["auto"] | float, AfterValidator(_auto_or_at_least(1))]
AutoStoreMib = Annotated[Literal["auto"] | int, AfterValidator(_auto_or_at_least(RAY_LEAST_STORE_MIB))]
Bins = Annotated[Edges, BeforeValidator(_parse_bins), AfterValidator(_check_bins)]
ModelNames = Annotated[tuple[ModelName, ...], Field(min_length=1), BeforeValidator(_split_models)]
VariableName = Annotated[str, AfterValidator(_is_variable)]


def in_panel(panel: Panel, *, absent: str | None = None) -> dict[str, Any]:
    """Return the metadata of a setting.

    Args:
        panel: Group of the setting in `--help` and in the documentation.
        absent: What happens without the setting, where the default value does not show it.
    """
    return {"panel": panel} | ({} if absent is None else {"absent": absent})


class Settings(BaseModel):
    """Settings of a command: frozen, and without keys that are not declared."""

    # The schemas are built when a value is checked, which `gax --help` does not do.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
