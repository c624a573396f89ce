"""Settings of `gax run`, `gax pack` and `gax classify`, combined from the settings of each topic.

The same names are options of the command line, keys of the YAML file and keys of the record of a run. Only
`cli` and `runner` use these classes; the packages below take plain values.
"""

import difflib
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import Field, ValidationError
from pydantic_core import to_jsonable_python

from gax_batch.cluster.unit_tracker import StepLimit
from gax_batch.errors import UsageError
from gax_batch.runner.model_settings import PASSES_PER_SECOND, InferenceSettings, ModelSettings
from gax_batch.runner.setting_groups import (
    CatalogSettings,
    ColorSettings,
    LimitSettings,
    OutputSettings,
    ResourceSettings,
    SurveySettings,
    UnitSettings,
)
from gax_batch.runner.setting_types import HIDDEN, Settings, Uri, in_panel

AnySettings = TypeVar("AnySettings", bound=Settings)

_WIDTH = 100


# The fields of the last base come first.
class RunSettings(
    OutputSettings,
    LimitSettings,
    ResourceSettings,
    InferenceSettings,
    CatalogSettings,
    SurveySettings,
):
    """Settings of `gax run` and `gax plan`; the YAML file of `--config` has exactly these keys."""

    @property
    def step_limit(self) -> StepLimit:
        """Time that one step of a unit may take."""
        fixed = None if self.unit_seconds == "auto" else self.unit_seconds
        return StepLimit(cutout_seconds=max(1.0, self.most_passes / PASSES_PER_SECOND), seconds=fixed)


class PackSettings(UnitSettings, SurveySettings):
    """Settings of `gax pack`."""

    output: Uri = Field(
        description="Folder or prefix for the Parquet shards.", json_schema_extra=in_panel("Output")
    )


class ClassifySettings(ModelSettings, ColorSettings):
    """Settings of `gax classify`."""

    images: tuple[Uri, ...] = Field(description="Image files or URIs.")


def load_settings(config_file: str | None, given: Mapping[str, Any]) -> RunSettings:
    """Merge the settings of a run from a YAML file and from the command line, which has priority.

    Args:
        config_file: Path of a YAML mapping, or None.
        given: Settings by name; None means "not given".

    Raises:
        UsageError: The file cannot be read, a key is unknown (the message names the nearest one), or a
            setting is missing or out of range.
    """
    values = _read_yaml(config_file) if config_file else {}
    known = list(RunSettings.model_fields)
    for key in values:
        if key not in known:
            nearest = difflib.get_close_matches(str(key).replace("-", "_"), known, n=1, cutoff=0)[0]
            raise UsageError(f"{config_file}: unknown key '{key}'; did you mean '{nearest}'?")
    return check_settings(
        RunSettings, values | {key: value for key, value in given.items() if value is not None}
    )


def check_settings(kind: type[AnySettings], given: Mapping[str, Any]) -> AnySettings:
    """Make settings from plain values.

    Args:
        kind: Class of the settings.
        given: Settings by name.

    Raises:
        UsageError: A setting is missing or its value is out of range.
    """
    for name, field in kind.model_fields.items():
        if field.is_required() and not given.get(name):
            file = f" or set '{name}' in the --config file" if kind is RunSettings else ""
            raise UsageError(f"no {name} given: pass --{name} URI{file}")
    try:
        return kind(**given)
    except ValidationError as error:
        raise UsageError(_first_problem(error)) from None


def describe_settings(settings: RunSettings | None = None) -> str:
    """Return settings as commented YAML for `--config`; the defaults if `settings` is None."""
    lines = []
    for name, field in RunSettings.model_fields.items():
        default = None if field.is_required() else field.default
        plain = to_jsonable_python(default if settings is None else getattr(settings, name))
        # PyYAML ends a lone scalar with a document marker.
        shown = yaml.safe_dump(plain, default_flow_style=True).removesuffix("...\n").strip()
        comment = textwrap.wrap(field.description or "", _WIDTH, break_on_hyphens=False)
        lines += [*(f"# {line}" for line in comment), f"{name}: {shown}", ""]
    return "\n".join(lines)


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"cannot read the configuration {path}: {reason}; pass a readable YAML file"
        ) from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UsageError(
            f"{path} is not a mapping; write one 'key: value' per line, as `gax config show` prints"
        )
    return values


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    key = str(problem["loc"][0])
    value = "" if key in HIDDEN else f" cannot be {problem['input']!r}"
    return f"setting '{key}'{value}: {problem['msg']}; see `gax run --help`"
