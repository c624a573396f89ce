"""Optional packages, which only some commands need, and the extras of gax-batch that install them."""

import importlib.util

from gax_batch.errors import UsageError


def require_extra(extra: str, purpose: str, *modules: str) -> None:
    """Check that the modules of an extra can be imported.

    Args:
        extra: Name of an extra in `pyproject.toml`.
        purpose: The command or function that needs the modules.
        modules: Names of top-level modules.

    Raises:
            UsageError: A module is not installed. The message has its name and the command that installs it.
    """
    missing = [module.replace("_", "-") for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(
            f"{purpose} needs {', '.join(missing)}, which is not installed: pip install 'gax-batch[{extra}]'"
        )
