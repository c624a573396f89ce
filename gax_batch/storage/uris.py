"""URIs as text: normalize, join and compare them, and give local ones their path."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from gax_batch.errors import UsageError

HTTP = frozenset({"http", "https"})


def normalize_uri(uri: str) -> str:
    """Return the absolute `file://` URI of a local path, or any other URI without its final slash.

    Raises:
        UsageError: The URI is empty, or contains credentials or a query (URIs are stored in the catalog).
    """
    if not uri.strip():
        raise UsageError("an empty path was given; name a folder, a file or a URI")
    path = local_path(uri)
    if path is not None:
        return f"file://{path}"
    parts = urlsplit(uri)
    if parts.password is not None or (parts.scheme in HTTP and (parts.username or parts.query)):
        raise UsageError(
            f"a {parts.scheme}:// URI contains credentials or a query, which the catalog would store; "
            "set credentials in the environment and give a plain URI"
        )
    return uri.rstrip("/")


def local_path(uri: str) -> Path | None:
    """Return the absolute path of a local path or `file:` URI, or None for any other scheme."""
    if uri.startswith("file:"):
        uri = uri.removeprefix("file:").removeprefix("//")
    elif "://" in uri:
        return None
    else:
        uri = str(Path(uri).expanduser())
    return Path(os.path.abspath(uri))  # noqa: PTH100 (`resolve` would follow links)


def join(uri: str, *names: str) -> str:
    """Append names to a URI, each after one slash."""
    return "/".join([uri.rstrip("/"), *(name.strip("/") for name in names)])


def is_within(uri: str, folder: str) -> bool:
    """Return whether a normalized URI is a folder or below it. Follows links on a local disk."""
    path, root = local_path(uri), local_path(folder)
    if path is None or root is None:
        return f"{uri}/".startswith(f"{folder}/")
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
