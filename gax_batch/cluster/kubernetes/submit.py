"""`gax submit`: a RayJob from a template, watched to its end; what is running for the same night is adopted.

Asking every few seconds costs the API server less than it costs to get a watch right that lasts a night,
and an answer lost on the way is asked for again.
"""

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import yaml

from gax_batch.cluster.kubernetes.api import SURVEY_LABEL, Cluster, ExistsError, InvalidError
from gax_batch.cluster.kubernetes.rayjob import Object, Problem, lint, named, references
from gax_batch.errors import FatalError, TransientError, UsageError
from gax_batch.system.signals import StoppedError, cancel_on_signal

logger = logging.getLogger(__name__)

ENDED = ("Complete", "Failed", "ValidationFailed")
LOG_LINES = 20

Result = TypeVar("Result")

_EXIT_CODE = re.compile(r"failed with exit code (\d+)")


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds between questions, how long an API may not answer, and how many ended jobs are kept."""

    poll_seconds: float = 10.0
    silence_seconds: float = 600.0
    keep: int = 7


def read_template(cluster: Cluster, where: str) -> Object:
    """The RayJob that `where` names.

    Args:
        cluster: Where to look for `rayjob/NAME`.
        where: A YAML file, `-` for standard input, or `rayjob/NAME`. Of several documents, the RayJob.

    Raises:
        UsageError: There is none, or several.
    """
    if where.startswith("rayjob/"):
        job = cluster.get_job(where.removeprefix("rayjob/"))
        if job is None:
            raise UsageError(f"{where} is not in the namespace {cluster.namespace}; apply its overlay first")
        return job
    try:
        text = sys.stdin.read() if where == "-" else Path(where).read_text(encoding="utf-8")
        documents = [document for document in yaml.safe_load_all(text) if isinstance(document, dict)]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read the template {where}: {' '.join(str(error).split())}") from None
    jobs = [document for document in documents if document.get("kind") == "RayJob"]
    if len(jobs) != 1:
        raise UsageError(f"{where} holds {len(jobs)} RayJobs; give a template with one")
    return jobs[0]


def job_of_night(template: Object, name: str | None, now: datetime | None = None) -> Object:
    """The job to run: named by the night (UTC) where no name is given, and labeled with its survey."""
    metadata = template.get("metadata") or {}
    survey = str((metadata.get("labels") or {}).get(SURVEY_LABEL) or metadata.get("name", ""))
    if not survey or not isinstance(template.get("spec"), dict):
        raise UsageError("the template has no metadata.name or no spec; give a whole RayJob")
    name = name or f"{metadata['name']}-{now or datetime.now(UTC):%Y%m%d}"
    return named(template, name, {SURVEY_LABEL: survey})


def check(cluster: Cluster, job: Object) -> list[Problem]:
    """What would go wrong with a job, found before it is created: our rules, the API's, what it refers to.

    Raises:
        UsageError: It is no RayJob, or the API refuses to look at it.
        TransientError: The API does not answer.
    """
    problems = lint(job)
    try:
        cluster.create_job(job, dry_run=True)
    except ExistsError:
        pass
    except InvalidError as error:
        causes = error.causes or [("", str(error))]
        problems += [Problem(path or "the job", what, "mend the template") for path, what in causes]
    problems += _missing(cluster, job)
    problems += [
        Problem(
            "metadata.name",
            f"{other['metadata']['name']} of the same survey is still running",
            "wait for it or delete it; let the schedule leave more time",
        )
        for other in _others_running(cluster, job)
    ]
    return problems


def submit(cluster: Cluster, job: Object, patience: Patience | None = None) -> int:
    """Run a job and wait for its end. SIGTERM or SIGINT deletes the job with its cluster.

    Args:
        cluster: The Kubernetes cluster.
        job: The RayJob, from `job_of_night`.
        patience: How often the API is asked, and for how long it may not answer.

    Returns:
        The exit code of the run: 0, 2, 3 or 4 as for `gax run`; 143 or 130 after a signal.

    Raises:
        UsageError: The job breaks a rule, the API refuses it, or another job of the survey is running.
        TransientError: The API does not answer. The job continues, and the same command adopts it.
        FatalError: The job was deleted, or failed for another reason than its run.
    """
    patience = patience or Patience()
    name = str(job["metadata"]["name"])
    try:
        with cancel_on_signal():
            if not _start(cluster, job, patience):
                return 0
            ended = _wait(cluster, name, patience)
            code = _report(cluster, ended, patience)
            _prune(cluster, job, patience)
            return code
    except StoppedError as stop:
        # A pod that is told to stop has a minute; a second signal ends this process at once.
        _patiently(lambda: cluster.delete_job(name), replace(patience, silence_seconds=30.0))
        logger.info(f"told to stop: {name} is ended; the same command goes on with what it has not finished")
        return stop.exit_code


def _start(cluster: Cluster, job: Object, patience: Patience) -> bool:
    name = str(job["metadata"]["name"])
    there = _patiently(lambda: cluster.get_job(name), patience)
    if there is not None and not _has_ended(there):
        logger.info(f"adopted {name}, which is running already")
        return True
    if there is not None and _succeeded(there):
        logger.info(f"{name} has completed already")
        return False
    problems = lint(job)
    if problems:
        more = f" (and {len(problems) - 1} more: gax submit --check)" if problems[1:] else ""
        raise UsageError(f"{problems[0]}{more}")
    for other in _patiently(lambda: _others_running(cluster, job), patience):
        raise UsageError(
            f"{other['metadata']['name']} of the same survey is still running; "
            "wait for it or delete it: two runs on one catalog cost twice"
        )
    if there is not None:
        logger.info(f"{name} failed before; it starts again")
        _patiently(lambda: cluster.delete_job(name), patience)
        while _patiently(lambda: cluster.get_job(name), patience) is not None:
            time.sleep(patience.poll_seconds)
    try:
        # Where the answer was lost, the job of this name is ours.
        _patiently(lambda: cluster.create_job(job), patience)
    except ExistsError:
        logger.info(f"adopted {name}, which is running already")
        return True
    logger.info(f"created {name} in {cluster.namespace}")
    return True


def _wait(cluster: Cluster, name: str, patience: Patience) -> Object:
    shown = ""
    while True:
        job = _patiently(lambda: cluster.get_job(name), patience)
        if job is None:
            raise FatalError(f"{name} was deleted while it ran; submit it again to finish what is missing")
        status = job.get("status") or {}
        state = " ".join(str(status.get(key) or "") for key in ("jobDeploymentStatus", "jobStatus")).strip()
        if state != shown:
            logger.info(f"{name}: {state}")
            shown = state
        if _has_ended(job):
            return job
        time.sleep(patience.poll_seconds)


def _report(cluster: Cluster, job: Object, patience: Patience) -> int:
    name, status = job["metadata"]["name"], job.get("status") or {}
    message = str(status.get("message") or "")
    try:
        lines = cluster.log_tail(name, LOG_LINES)
    except (UsageError, TransientError, FatalError):
        lines = []
    # The operator's message ends with the run's own last lines, should its pod be gone.
    for line in lines or message.splitlines()[1:][-LOG_LINES:]:
        logger.info(f"| {line}")
    if _succeeded(job):
        return 0
    found = _EXIT_CODE.search(message)
    if found and 0 < int(found[1]) < 256:
        logger.info(f"{name} failed: the run ended with exit code {found[1]}")
        return int(found[1])
    reason = str(status.get("reason") or status.get("jobDeploymentStatus"))
    raise FatalError(
        f"{name} failed: {reason}: {' '.join(message.split())[:500] or 'no message'}; "
        f"see kubectl describe rayjob {name}"
    )


def _prune(cluster: Cluster, job: Object, patience: Patience) -> None:
    """Delete the oldest ended jobs of the survey: nobody else does."""
    ended = [
        other for other in cluster.list_jobs(job["metadata"]["labels"][SURVEY_LABEL]) if _has_ended(other)
    ]
    ended.sort(key=lambda other: str(other["metadata"].get("creationTimestamp", "")))
    for other in ended[: max(0, len(ended) - patience.keep)]:
        cluster.delete_job(other["metadata"]["name"])


def _others_running(cluster: Cluster, job: Object) -> list[Object]:
    survey = job["metadata"]["labels"][SURVEY_LABEL]
    return [
        other
        for other in cluster.list_jobs(survey)
        if other["metadata"]["name"] != job["metadata"]["name"]
        # The template in the cluster never runs; a job that waits in a queue is suspended too, but will.
        and not (other["metadata"]["name"] == survey and (other.get("spec") or {}).get("suspend"))
        and not _has_ended(other)
    ]


def _missing(cluster: Cluster, job: Object) -> Iterator[Problem]:
    for path, kind, name in references(job["spec"]):
        if cluster.has(kind, name) is False:
            yield Problem(path, f"there is no {kind} {name} in {cluster.namespace}", "create it first")


def _has_ended(job: Object) -> bool:
    return (job.get("status") or {}).get("jobDeploymentStatus") in ENDED


def _succeeded(job: Object) -> bool:
    status = job.get("status") or {}
    return status.get("jobDeploymentStatus") == "Complete" and status.get("jobStatus") == "SUCCEEDED"


def _patiently(ask: Callable[[], Result], patience: Patience) -> Result:
    """Ask again while the API does not answer, until it has been silent for too long."""
    until = time.monotonic() + patience.silence_seconds
    while True:
        try:
            return ask()
        except TransientError as error:
            if time.monotonic() >= until:
                raise TransientError(
                    f"{error}; a job that was created goes on, and the same command adopts it"
                ) from error
            time.sleep(patience.poll_seconds)
