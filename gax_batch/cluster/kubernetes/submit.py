"""Create a RayJob from a template for `gax submit` and wait for its end.

A RayJob of the same night that is already running is adopted. The state is polled every few seconds: this is
simpler than a watch that must last a night, and a lost answer is only requested again.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import yaml

from gax_batch.cluster.kubernetes.api import ApiUnavailableError, Cluster, ExistsError, InvalidError
from gax_batch.cluster.kubernetes.night import (
    MIN_SECONDS,
    Night,
    attempt_number,
    epoch,
    has_ended,
    has_succeeded,
    is_over,
    read_outcome,
)
from gax_batch.cluster.kubernetes.rayjob import Object, Problem, lint, references
from gax_batch.errors import FatalError, GaxError, TransientError, UsageError
from gax_batch.system.signals import StoppedError, cancel_on_signal

logger = logging.getLogger(__name__)

LOG_LINES = 20

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Patience:
    """Intervals and limits of a submission.

    Attributes:
        poll_seconds: Seconds between requests to the API.
        silence_seconds: Seconds for which the API may fail to answer.
        keep: Number of ended jobs to keep in the cluster.
        attempts: Maximum number of RayJobs of a night when the infrastructure fails.
    """

    poll_seconds: float = 10.0
    silence_seconds: float = 600.0
    keep: int = 7
    attempts: int = 3


def read_template(cluster: Cluster, where: str) -> Object:
    """Read a template.

    Args:
        cluster: Cluster in which `rayjob/NAME` is looked up.
        where: A YAML file, `-` for standard input, or `rayjob/NAME`. Documents of other kinds are ignored.

    Returns:
        The RayJob.

    Raises:
        UsageError: There is no RayJob, or more than one.
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


def read_owner(cluster: Cluster, name: str) -> Object:
    """Return the Kubernetes Job that runs this command.

    Raises:
        UsageError: There is no Job of this name.
    """
    owner = cluster.get_kubernetes_job(name)
    if owner is None:
        raise UsageError(
            f"there is no Job {name} in the namespace {cluster.namespace}; pass the Job of this pod"
        )
    return owner


def check(cluster: Cluster, night: Night) -> list[Problem]:
    """Return the problems of a job before it is created: violated rules, and missing objects.

    Raises:
        UsageError: The template is not a RayJob, or the API refuses the request.
        TransientError: The API does not answer.
    """
    job = night.attempt(1)
    problems = lint(job) + list(_collisions(cluster, night, job, Patience(silence_seconds=0.0)))
    try:
        cluster.create_job(job, dry_run=True)
    except ExistsError:
        pass
    except InvalidError as error:
        causes = error.causes or [("", str(error))]
        problems += [Problem(path or "the job", what, "correct the template") for path, what in causes]
    problems += _missing(cluster, job)
    problems += [
        Problem(
            "metadata.name",
            f"{other['metadata']['name']} of the same survey is still running",
            "wait for it or delete it; leave more time in the schedule",
        )
        for other in _others_running(cluster, night)
    ]
    return problems


def submit(
    cluster: Cluster,
    night: Night,
    patience: Patience | None = None,
    up_to_date: Callable[[], bool] = lambda: False,
) -> int:
    """Run a night and wait for its end.

    If the infrastructure fails, another RayJob processes the remaining units, until the attempts or the time
    of the night are used up. SIGTERM or SIGINT deletes the running RayJob with its cluster. If the night has
    an owner that will start another pod, the RayJob continues, and that pod adopts it.

    Args:
        cluster: Cluster of the night.
        night: Definition of the RayJobs, from `night_of`.
        patience: Intervals and limits; None for the defaults.
        up_to_date: Returns whether the run would have nothing to do. Called before the first RayJob of the
            night is created.

    Returns:
        The exit code of the run: 0, 2, 3 or 4 as for `gax run`; 143 or 130 after a signal.

    Raises:
        UsageError: The job violates a rule, the API refuses it, or another job of the survey is running.
        ApiUnavailableError: The API does not answer. The job continues, and the same command adopts it.
        FatalError: The job was deleted, or failed for another reason than its run.
    """
    patience = patience or Patience()
    try:
        with cancel_on_signal():
            try:
                code = _run(cluster, night, patience, up_to_date)
            except GaxError:
                _prune(cluster, night, patience)
                raise
            _prune(cluster, night, patience)
            return code
    except StoppedError as stop:
        # A pod has a minute to stop. A second signal ends this process immediately.
        _stop(cluster, night, replace(patience, silence_seconds=30.0))
        return stop.exit_code


def _run(cluster: Cluster, night: Night, patience: Patience, up_to_date: Callable[[], bool]) -> int:
    made = _with_patience(lambda: night.attempts(cluster.list_jobs(night.survey)), patience)
    first, begun = 1, time.time()
    if not made:
        if _has_nothing_to_do(up_to_date):
            logger.info(f"{night.name} does not need a cluster; none was created")
            return 0
        job = _create(cluster, night, first, begun, patience)
    else:
        job = made[-1]
        first, begun = _adopted(night, made)
        if has_succeeded(job):
            logger.info(f"{job['metadata']['name']} has completed already")
            return 0
        if not has_ended(job):
            logger.info(f"adopted {job['metadata']['name']}, which is running already")
        elif night.owner is None:
            # Without an owner, only a user starts it again, after the cause was removed.
            logger.info(f"{job['metadata']['name']} failed before; a new attempt starts")
            first, begun = first + 1, time.time()
            job = _create(cluster, night, first, begun, patience)
    while True:
        job = _wait(cluster, str(job["metadata"]["name"]), patience)
        number = attempt_number(job)
        follows = _may_follow(night, job, number - first + 1, begun, patience)
        code = _report(cluster, job, last=not follows)
        if code is not None:
            return code
        logger.info(f"attempt {number - first + 2} of at most {patience.attempts} follows")
        _await_release(cluster, job, patience)
        job = _create(cluster, night, number + 1, begun, patience)


def _has_nothing_to_do(up_to_date: Callable[[], bool]) -> bool:
    try:
        return up_to_date()
    except (TransientError, OSError) as error:
        # The run has more time for retries, and a larger disk.
        logger.info(f"cannot be planned here: {error}; the run is submitted and plans again")
        return False


def _adopted(night: Night, made: list[Object]) -> tuple[int, float]:
    """Return the number of the first attempt that counts, and the time of its creation."""
    counted = made[0] if night.owner is not None else made[-1]
    return attempt_number(counted), epoch(str(counted["metadata"]["creationTimestamp"]))


def _may_follow(night: Night, job: Object, attempts: int, begun: float, patience: Patience) -> bool:
    left = night.seconds_left(begun, time.time())
    return read_outcome(job).again and attempts < patience.attempts and left >= MIN_SECONDS


def _create(cluster: Cluster, night: Night, number: int, begun: float, patience: Patience) -> Object:
    left = night.seconds_left(begun, time.time())
    if left < MIN_SECONDS:
        raise FatalError(
            f"{night.name} has {max(0, round(left))} seconds left; raise its activeDeadlineSeconds"
        )
    job = night.attempt(number, left)
    name = job["metadata"]["name"]
    problems = lint(job) + list(_collisions(cluster, night, job, patience))
    if problems:
        more = f" (and {len(problems) - 1} more: gax submit --check)" if problems[1:] else ""
        raise UsageError(f"{problems[0]}{more}")
    for other in _with_patience(lambda: _others_running(cluster, night), patience):
        raise UsageError(
            f"{other['metadata']['name']} of the same survey is still running; "
            "wait for it or delete it: two runs on one catalog cost twice"
        )
    try:
        # If the answer was lost, the job of this name was created by this process.
        _with_patience(lambda: cluster.create_job(job), patience)
    except ExistsError:
        logger.info(f"adopted {name}, which is running already")
    else:
        logger.info(f"created {name} in {cluster.namespace}")
    return job


def _wait(cluster: Cluster, name: str, patience: Patience) -> Object:
    shown = ""
    while True:
        job = _with_patience(lambda: cluster.get_job(name), patience)
        if job is None:
            raise FatalError(f"{name} was deleted while it ran; submit it again to finish what is missing")
        status = job.get("status") or {}
        state = " ".join(str(status.get(key) or "") for key in ("jobDeploymentStatus", "jobStatus")).strip()
        if state != shown:
            logger.info(f"{name}: {state}")
            shown = state
        if has_ended(job):
            return job
        time.sleep(patience.poll_seconds)


def _report(cluster: Cluster, job: Object, *, last: bool) -> int | None:
    """Log the outcome of a RayJob. Return the exit code of the night, None if another attempt follows."""
    name, outcome = job["metadata"]["name"], read_outcome(job)
    try:
        lines = cluster.log_tail(name, LOG_LINES)
    except (UsageError, TransientError, FatalError):
        lines = []
    # If the pod no longer exists, the last lines of the run are at the end of the operator's message.
    for line in lines or outcome.message.splitlines()[1:][-LOG_LINES:]:
        logger.info(f"| {line}")
    if outcome.succeeded:
        return 0
    if outcome.code is not None:
        logger.info(f"{name} failed: the run ended with exit code {outcome.code}")
        return outcome.code if last else None
    failure = (
        f"{name} failed: {outcome.reason}: {' '.join(outcome.message.split())[:500] or 'no message'}; "
        f"see kubectl describe rayjob {name}"
    )
    if last:
        raise FatalError(failure)
    logger.info(failure)
    return None


def _await_release(cluster: Cluster, job: Object, patience: Patience) -> None:
    """Wait until the cluster of an ended RayJob is deleted: a driver that the operator lost may still run."""
    name = (job.get("status") or {}).get("rayClusterName")
    until = time.monotonic() + job["spec"].get("ttlSecondsAfterFinished", 0) + patience.silence_seconds
    with suppress(UsageError):
        while name and time.monotonic() < until:
            if _with_patience(lambda: cluster.get_ray_cluster(name), patience) is None:
                return
            time.sleep(patience.poll_seconds)


def _stop(cluster: Cluster, night: Night, patience: Patience) -> None:
    running = [
        str(job["metadata"]["name"])
        for job in _with_patience(lambda: night.attempts(cluster.list_jobs(night.survey)), patience)
        if not has_ended(job)
    ]
    if night.owner is not None:
        name = str(night.owner["metadata"]["name"])
        if not is_over(_with_patience(lambda: cluster.get_kubernetes_job(name), patience)):
            jobs = ", ".join(running) or night.name
            logger.info(f"stopping: {jobs} continues; the next pod of {name} adopts it")
            return
    for job in running:
        _with_patience(partial(cluster.delete_job, job), patience)
        logger.info(f"stopping: {job} is deleted; the same command continues with the unfinished units")


def _prune(cluster: Cluster, night: Night, patience: Patience) -> None:
    """Delete the oldest ended jobs of the survey. Kubernetes does not delete them."""
    with suppress(UsageError, TransientError):
        ended = [other for other in cluster.list_jobs(night.survey) if has_ended(other)]
        ended.sort(key=lambda other: str(other["metadata"].get("creationTimestamp", "")))
        for other in ended[: max(0, len(ended) - patience.keep)]:
            cluster.delete_job(other["metadata"]["name"])


def _others_running(cluster: Cluster, night: Night) -> list[Object]:
    jobs = cluster.list_jobs(night.survey)
    own = [job["metadata"]["name"] for job in night.attempts(jobs)]
    return [
        other
        for other in jobs
        if other["metadata"]["name"] not in own
        # The template in the cluster never runs. A job that waits in a queue is suspended too, but will run.
        and not (other["metadata"]["name"] == night.survey and (other.get("spec") or {}).get("suspend"))
        and not has_ended(other)
    ]


def _collisions(cluster: Cluster, night: Night, job: Object, patience: Patience) -> Iterator[Problem]:
    """Yield the problems of a name in use: the submitter Job of the operator needs the name of the RayJob."""
    name = job["metadata"]["name"]
    other = _with_patience(lambda: cluster.get_job(name), patience)
    if other is not None and not night.attempts([other]):
        yield Problem("metadata.name", f"'{name}' is another RayJob", "choose another --name, or delete it")
    if job["spec"].get("submissionMode", "K8sJobMode") != "K8sJobMode":
        return
    with suppress(UsageError):
        there = _with_patience(lambda: cluster.get_kubernetes_job(name), patience)
        owners = [] if there is None else there["metadata"].get("ownerReferences") or []
        if there is not None and ("RayJob", name) not in [(o["kind"], o["name"]) for o in owners]:
            yield Problem(
                "metadata.name",
                f"'{name}' is the name of a Job, under which KubeRay must create its own",
                "choose another --name, or delete the Job",
            )


def _missing(cluster: Cluster, job: Object) -> Iterator[Problem]:
    for path, kind, name in references(job["spec"]):
        if cluster.has(kind, name) is False:
            yield Problem(path, f"there is no {kind} {name} in {cluster.namespace}", "create it first")


def _with_patience(ask: Callable[[], Result], patience: Patience) -> Result:
    """Repeat a request while the API does not answer, for at most `silence_seconds`."""
    until = time.monotonic() + patience.silence_seconds
    while True:
        try:
            return ask()
        except TransientError as error:
            if time.monotonic() >= until:
                raise ApiUnavailableError(
                    f"{error}; a job that was created continues, and the same command adopts it"
                ) from error
            time.sleep(patience.poll_seconds)
