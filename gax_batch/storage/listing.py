"""List the objects below a folder or prefix, or those that match a glob, one at a time."""

import errno
import re
from collections.abc import Iterator

from fsspec.utils import glob_translate

from gax_batch.errors import NoAnswerError, TransientError, UsageError
from gax_batch.storage import store_of
from gax_batch.storage.client_errors import NoBucketError
from gax_batch.storage.store import ObjectInfo
from gax_batch.storage.uris import local_path, normalize_uri

_MAGIC = re.compile(r"[*?\[]")


def list_objects(uri: str, *, missing_ok: bool = False, exclude: str | None = None) -> list[ObjectInfo]:
    """Return the objects of `iter_objects`, sorted by URI."""
    objects = iter_objects(uri, missing_ok=missing_ok, exclude=exclude)
    return sorted(objects, key=lambda info: info.uri)


def iter_objects(uri: str, *, missing_ok: bool = False, exclude: str | None = None) -> Iterator[ObjectInfo]:
    """List one object, all objects below a folder or prefix, or those that a glob matches.

    A glob contains `*`, `?`, `[]` or `**`. The listing follows links to local folders.

    Args:
        uri: Path or URI. A local path that exists is never a glob.
        missing_ok: Yield nothing if nothing is found. The URI is then the name of a folder that may not
            exist yet, and never a glob.
        exclude: Normalized URI of a folder that is not listed.

    Yields:
        Objects in the order in which the store reports them. No request is made per object.

    Raises:
        UsageError: Nothing is found, the scheme is unknown, access is refused, or no server answers.
        TransientError: The store kept failing.
    """
    uri = normalize_uri(uri)
    folder, matches = (uri, None) if missing_ok else split_glob(uri)
    found = False
    try:
        for info in store_of(folder).list(folder, exclude):
            if matches is None or matches.match(info.uri):
                found = True
                yield info
    except (FileNotFoundError, NotADirectoryError) as error:
        if found:  # a partial listing would be taken for the whole survey
            raise TransientError(f"a folder of {uri} was deleted while it was listed; run again") from None
        if isinstance(error, NoBucketError):
            raise UsageError(f"{error}; check its name and the endpoint in the environment") from None
    except PermissionError:
        raise UsageError(
            f"no permission to list {uri}; check its permissions or set credentials in the environment"
        ) from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise UsageError(
            f"{uri} contains nested folders whose path is longer than the system can read "
            f"({str(error.filename)[:80]}...); move or delete them"
        ) from None
    except NoAnswerError as error:
        if found:
            raise
        raise UsageError(f"{error}; check the endpoint in the environment and the network") from None
    if not found and not missing_ok:
        raise UsageError(_nothing_found(uri, is_glob=matches is not None))


def split_glob(uri: str) -> tuple[str, re.Pattern[str] | None]:
    """Return the folder to list, and the pattern of the URIs in it if `uri` is a glob."""
    magic = _MAGIC.search(uri)
    path = local_path(uri)
    if magic is None or (path is not None and path.exists()):
        return uri, None
    return uri[: uri.rindex("/", 0, magic.start())], re.compile(glob_translate(uri))


def _nothing_found(uri: str, *, is_glob: bool) -> str:
    if is_glob:
        return f"no object matches {uri}; check the pattern (quote it, so that the shell does not expand it)"
    path = local_path(uri)
    if path is not None and path.is_dir():
        return f"{uri} is an empty folder; name one that contains images or Parquet shards"
    return f"nothing is at {uri}; check its name"
