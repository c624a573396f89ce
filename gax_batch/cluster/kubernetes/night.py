"""Define a night: consecutive RayJobs that attempt the same run, and the outcome of each.

The retries of KubeRay (`backoffLimit`) are not sufficient. They also repeat a run with a wrong option,
restart the deadline at each retry, and do not repeat a run whose head was lost. Therefore the RayJobs of a
night have a `backoffLimit` of 0, and `gax submit` decides about retries.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from gax_batch.cluster.kubernetes.api import SURVEY_LABEL
from gax_batch.cluster.kubernetes.rayjob import Object, named
from gax_batch.errors import UsageError

NIGHT_LABEL = "gax-batch/night"
ENDED = ("Complete", "Failed", "ValidationFailed")

MIN_SECONDS = 120
"""Minimum duration of an attempt. A shorter one would end before its head is ready."""
MARGIN_SECONDS = 300
"""Time between the deadline of a RayJob and that of the Job that owns it, to report the outcome."""

# Another attempt would not change a wrong option or failed units. The other codes are those of lost storage,
# nodes and processes.
_FINAL_CODES = (2, 3)
_FINAL_REASONS = ("DeadlineExceeded", "ValidationFailed")
_EXIT_CODE = re.compile(r"failed with exit code (\d+)")


@dataclass(frozen=True, slots=True)
class Night:
    """The definition of the RayJobs of a night.

    Attributes:
        name: Name of the night. Its RayJobs are `NAME-1`, `NAME-2`, ... KubeRay gives its submitter Job the
            name of the RayJob, so that a RayJob with the name of the Job of the CronJob never starts.
        template: RayJob from which the RayJobs of the night are made.
        survey: Value of the label that all RayJobs of a survey share.
        owner: Kubernetes Job that runs `gax submit`. The RayJobs are deleted with it.
    """

    name: str
    template: Object
    survey: str
    owner: Object | None = None

    def attempt(self, number: int, seconds: float = math.inf) -> Object:
        """Return a RayJob of the night.

        Args:
            number: Number of the attempt, from 1.
            seconds: Maximum duration, in seconds.
        """
        labels = {SURVEY_LABEL: self.survey, NIGHT_LABEL: self.name}
        job = named(self.template, f"{self.name}-{number}", labels)
        if self.owner is not None:
            job["metadata"]["ownerReferences"] = [_reference(self.owner)]
        job["spec"]["backoffLimit"] = 0
        if seconds < job["spec"].get("activeDeadlineSeconds", math.inf):
            job["spec"]["activeDeadlineSeconds"] = int(seconds)
        return job

    def attempts(self, jobs: Iterable[Object]) -> list[Object]:
        """Return the RayJobs among `jobs` that belong to this night, in order."""
        own = [job for job in jobs if (job["metadata"].get("labels") or {}).get(NIGHT_LABEL) == self.name]
        return sorted((job for job in own if attempt_number(job)), key=attempt_number)

    def seconds_left(self, begun: float, now: float) -> float:
        """Return how long a new attempt may last, in seconds.

        Args:
            begun: Time at which the first attempt was created, in seconds since 1970.
            now: Current time, in seconds since 1970.
        """
        ends = begun + self.template["spec"].get("activeDeadlineSeconds", math.inf)
        if self.owner is not None:
            limit = self.owner["spec"].get("activeDeadlineSeconds", math.inf)
            started = (self.owner.get("status") or {}).get("startTime")
            ends = min(ends, (epoch(started) if started else now) + limit - MARGIN_SECONDS)
        return float(ends - now)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a RayJob.

    Attributes:
        succeeded: Whether the run succeeded.
        code: Exit code of the run, None if the operator does not know it.
        reason: Reason that the operator reports.
        message: Message of the operator. It ends with the last lines of the run.
        again: Whether the infrastructure failed, so that another attempt may succeed.
    """

    succeeded: bool
    code: int | None
    reason: str
    message: str
    again: bool


def night_of(
    template: Object, name: str | None = None, owner: Object | None = None, now: datetime | None = None
) -> Night:
    """Return the night of a template.

    Args:
        template: A RayJob.
        name: Name of the night. None for the name of the owner, or of the template with the date (UTC).
        owner: Kubernetes Job that runs `gax submit`, if any.
        now: Time from which the date is taken; None for the current time.

    Raises:
        UsageError: The template does not have a name or a specification.
    """
    metadata = template.get("metadata") or {}
    survey = str((metadata.get("labels") or {}).get(SURVEY_LABEL) or metadata.get("name", ""))
    if not survey or not isinstance(template.get("spec"), dict):
        raise UsageError("the template has no metadata.name or no spec; give a whole RayJob")
    if name is None and owner is not None:
        name = str(owner["metadata"]["name"])
    return Night(name or f"{metadata['name']}-{now or datetime.now(UTC):%Y%m%d}", template, survey, owner)


def read_outcome(job: Object) -> Outcome:
    """Return the outcome of a RayJob from its status."""
    status = job.get("status") or {}
    message = str(status.get("message") or "")
    found = _EXIT_CODE.search(message)
    code = int(found[1]) if found and 0 < int(found[1]) < 256 else None
    reason = str(status.get("reason") or status.get("jobDeploymentStatus"))
    again = (
        status.get("jobDeploymentStatus") == "Failed"
        and reason not in _FINAL_REASONS
        and code not in _FINAL_CODES
        # The run was stopped on purpose with `ray job stop`.
        and status.get("jobStatus") != "STOPPED"
    )
    return Outcome(has_succeeded(job), code, reason, message, again)


def attempt_number(job: Object) -> int:
    """Return the number at the end of the name of a RayJob; 0 if there is none."""
    found = re.search(r"-(\d+)$", str(job["metadata"]["name"]))
    return int(found[1]) if found else 0


def has_ended(job: Object) -> bool:
    """Return whether a RayJob has ended, so that none of its processes runs or will run."""
    return (job.get("status") or {}).get("jobDeploymentStatus") in ENDED


def has_succeeded(job: Object) -> bool:
    """Return whether the run of a RayJob ended with exit code 0."""
    status = job.get("status") or {}
    return status.get("jobDeploymentStatus") == "Complete" and status.get("jobStatus") == "SUCCEEDED"


def is_over(owner: Object | None) -> bool:
    """Return whether a Kubernetes Job starts no more pods: missing, ended, suspended or being deleted."""
    if owner is None or owner["metadata"].get("deletionTimestamp") or owner["spec"].get("suspend"):
        return True
    ends = ("Complete", "Failed", "FailureTarget", "SuccessCriteriaMet")
    conditions = (owner.get("status") or {}).get("conditions") or []
    return any(c.get("type") in ends and c.get("status") == "True" for c in conditions)


def epoch(timestamp: str) -> float:
    """Return a Kubernetes timestamp as seconds since 1970."""
    return datetime.fromisoformat(timestamp).timestamp()


def _reference(owner: Object) -> Object:
    # With blockOwnerDeletion, OwnerReferencesPermissionEnforcement would require the right to change the
    # finalizers of the owner.
    metadata = owner["metadata"]
    return {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
