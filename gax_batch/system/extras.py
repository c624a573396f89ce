"""Packages that only some commands need, and which extra of gax-batch installs them."""

import importlib.util

from gax_batch.errors import UsageError


def require_extra(extra: str, purpose: str, *modules: str) -> None:
    """Check that the modules of an extra can be imported, before they are.

    Args:
        extra: Name of an extra in `pyproject.toml`.
        purpose: The command or function that needs the modules.
        modules: Names of top-level modules.

    Raises:
        UsageError: A module is not installed; names it and the command that installs it.
    """
    missing = [module.replace("_", "-") for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(
            f"{purpose} needs {', '.join(missing)}, not installed here: pip install 'gax-batch[{extra}]'"
        )
