"""Post the outcome of a run as JSON to a webhook, whose secret URL is in an environment variable."""

import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from gax_batch.errors import UsageError

logger = logging.getLogger(__name__)

ATTEMPTS = 3
_ANSWER_SECONDS = 10.0
_TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_POSTED_KEYS = (
    "run_id",
    "status",
    "cause",
    "started",
    "counts",
    "seconds",
    "galaxies_per_second",
    "snapshot",
    "domain",
)


class Webhook:
    """Posts the outcome of a run. A failure to post does not change the outcome."""

    def __init__(self, variable: str | None, *, pause_seconds: float = 1.0) -> None:
        """Read the URL from the environment.

        Args:
            variable: Name of the environment variable that holds the URL; None to post nothing.
            pause_seconds: Pause before the second attempt, in seconds. It doubles before the third.

        Raises:
            UsageError: The variable is not set, or does not hold an HTTP URL.
        """
        self._variable = variable
        self._pause = pause_seconds
        self._url = os.environ.get(variable, "") if variable else ""
        if variable and urlsplit(self._url).scheme not in ("http", "https"):
            what = "does not hold an http:// or https:// URL" if self._url else "is not set"
            raise UsageError(f"the environment variable {variable}, named by --webhook, {what}; set it")

    def send(self, summary: dict[str, Any], *, attempts: int = ATTEMPTS) -> None:
        """Post a summary. A failure is logged with the name of the variable, without the URL."""
        if not self._url:
            return
        problem = ""
        for attempt in range(attempts):
            if attempt:
                time.sleep(self._pause * 2 ** (attempt - 1))
            problem, transient = self._post(json.dumps(summary).encode())
            if not problem:
                return
            if not transient:
                break
        logger.info(f"the webhook of {self._variable} was not notified: {problem}")

    def _post(self, body: bytes) -> tuple[str, bool]:
        """Return what failed, without the URL (empty if nothing did), and whether a retry may succeed."""
        try:
            request = urllib.request.Request(  # noqa: S310 (the scheme was checked)
                self._url, body, {"Content-Type": "application/json", "User-Agent": "gax-batch"}
            )
            with _OPENER.open(request, timeout=_ANSWER_SECONDS):
                return "", False
        except urllib.error.HTTPError as error:
            with error:
                return f"it answered {error.code}", error.code in _TRANSIENT_STATUSES
        except urllib.error.URLError as error:
            reason = error.reason
            return (
                f"no answer ({type(reason).__name__ if isinstance(reason, Exception) else 'refused'})",
                True,
            )
        except (OSError, http.client.HTTPException, ValueError) as error:
            return f"no answer ({type(error).__name__})", isinstance(error, OSError)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Handles a redirect as an error: a redirected POST would become a GET without its body."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def summary_of(record: dict[str, Any]) -> dict[str, Any]:
    """Return what is posted of the record of a run; `text` is the line that chat services show."""
    counts, domain = record["counts"], record["domain"]
    text = (
        f"gax run {record['run_id']}: {record['status']}; {counts['galaxies']:,} galaxies, "
        f"{counts['rejects']:,} rejects, {counts['units_failed']:,} failed units of "
        f"{record['settings']['catalog']}"
    )
    if domain and domain["another_survey"]:
        text += f"; warning: the images differ from the reference images of {record['bundle_id']}"
    return {
        "text": text,
        "catalog": record["settings"]["catalog"],
        **{key: record[key] for key in _POSTED_KEYS},
    }
