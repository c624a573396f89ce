"""Options of the command line, which are generated from the declarations of the settings."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from pydantic import BeforeValidator
from pydantic.fields import FieldInfo
from typer.models import OptionInfo

from gax_batch.runner.model_settings import ModelSettings
from gax_batch.runner.setting_types import PANELS, Settings

# Values of other types are text on the command line, which the settings parse.
_PARSED: dict[Any, Any] = {
    bool: bool | None,
    int: int | None,
    float: float | None,
    int | None: int | None,
    float | None: float | None,
}


def setting_option(name: str, field: FieldInfo) -> OptionInfo:
    """Return the Typer option `--name` of a setting, in the panel of its metadata."""
    metadata: Any = field.json_schema_extra
    flag = f"--{name.replace('_', '-')}"
    option: OptionInfo = typer.Option(
        flag,
        help=field.description,
        show_default=metadata.get("absent") or _shown(field),
        rich_help_panel=metadata["panel"],
    )
    return option


def takes_settings(kind: type[Settings]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add an option to a command for each setting of a class.

    The options replace the parameter `given` of the command, which receives the settings of the user as a
    dictionary. A setting for which the command has its own parameter does not get an option.

    Args:
        kind: Class of the settings.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = dict(inspect.signature(command).parameters)
        del own["given"]
        fields = {name: field for name, field in kind.model_fields.items() if name not in own}

        @functools.wraps(command)
        def call(**values: Any) -> None:
            given = {name: values.pop(name) for name in fields}
            command({name: value for name, value in given.items() if value is not None}, **values)

        options = [_parameter(name, field) for name, field in sorted(fields.items(), key=_panel)]
        rest = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own.values()]
        call.__signature__ = inspect.Signature([*options, *rest])  # type: ignore[attr-defined]
        return call

    return decorate


def _panel(item: tuple[str, FieldInfo]) -> int:
    """Return the position of the panel of a setting in `--help`."""
    metadata: Any = item[1].json_schema_extra
    return PANELS.index(metadata["panel"])


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    text = any(isinstance(check, BeforeValidator) for check in field.metadata)
    accepted: Any = str | None if text else _PARSED.get(field.annotation, str | None)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[accepted, setting_option(name, field)],
    )


def _shown(field: FieldInfo) -> str | bool:
    """Return the default as a user would write it; False if there is none to show."""
    value = field.default
    if field.is_required() or value is None or isinstance(value, bool):
        return False
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, str):
        return value
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


Bundle = Annotated[str | None, setting_option("bundle", ModelSettings.model_fields["bundle"])]
ConfigFile = Annotated[
    str | None, typer.Option("--config", help="YAML file of the same settings. Options override it.")
]
Sources = Annotated[
    str | None,
    typer.Option(
        help="Folder or prefix that now holds the files of the survey. A file counts as the cataloged one if "
        "it has the same size.",
        show_default="their cataloged URIs, unchanged",
    ),
]
