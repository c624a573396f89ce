"""A night: its RayJobs, which one after another try to finish the same run, and what each of them ended with.

KubeRay retries too (`backoffLimit`), but after a wrong option as after a lost node, with a deadline that
starts anew each time, and not after a lost head. So the RayJobs of a night have a `backoffLimit` of 0, and
`gax submit` decides.
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
"""An attempt with less time left would end before its head is ready."""
MARGIN_SECONDS = 300
"""Between the deadline of a RayJob and that of the Job that owns it: the time to report its end."""

# A wrong option and failed units come again; the other codes are those of lost storage, nodes and processes.
_FINAL_CODES = (2, 3)
_FINAL_REASONS = ("DeadlineExceeded", "ValidationFailed")
_EXIT_CODE = re.compile(r"failed with exit code (\d+)")


@dataclass(frozen=True, slots=True)
class Night:
    """What a night's RayJobs are made of.

    Args:
        name: Of the night; its RayJobs are `NAME-1`, `NAME-2`, ... KubeRay gives its submitter Job the name
            of the RayJob: a RayJob that has the name of the CronJob's own Job never starts.
        template: A RayJob.
        survey: The label that all RayJobs of a survey share.
        owner: The Kubernetes Job that runs `gax submit`. Its RayJobs are deleted with it.
    """

    name: str
    template: Object
    survey: str
    owner: Object | None = None

    def attempt(self, number: int, seconds: float = math.inf) -> Object:
        """The RayJob number `number`, from 1, which may last for at most this many seconds."""
        labels = {SURVEY_LABEL: self.survey, NIGHT_LABEL: self.name}
        job = named(self.template, f"{self.name}-{number}", labels)
        if self.owner is not None:
            job["metadata"]["ownerReferences"] = [_reference(self.owner)]
        job["spec"]["backoffLimit"] = 0
        if seconds < job["spec"].get("activeDeadlineSeconds", math.inf):
            job["spec"]["activeDeadlineSeconds"] = int(seconds)
        return job

    def attempts(self, jobs: Iterable[Object]) -> list[Object]:
        """Those of some RayJobs that are of this night, in order."""
        own = [job for job in jobs if (job["metadata"].get("labels") or {}).get(NIGHT_LABEL) == self.name]
        return sorted((job for job in own if attempt_number(job)), key=attempt_number)

    def seconds_left(self, begun: float, now: float) -> float:
        """How long a new attempt may last.

        Args:
            begun: When the first attempt was created, in seconds since 1970.
            now: In seconds since 1970.
        """
        ends = begun + self.template["spec"].get("activeDeadlineSeconds", math.inf)
        if self.owner is not None:
            limit = self.owner["spec"].get("activeDeadlineSeconds", math.inf)
            started = (self.owner.get("status") or {}).get("startTime")
            ends = min(ends, (epoch(started) if started else now) + limit - MARGIN_SECONDS)
        return float(ends - now)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a RayJob ended.

    Args:
        succeeded: Whether its run did.
        code: The exit code of the run; None where the operator does not know it.
        reason: The operator's.
        message: The operator's; it ends with the last lines of the run.
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
    """The night of a template.

    Args:
        template: A RayJob.
        name: Of the night; otherwise the owner's, or the template's with the date (UTC).
        owner: The Kubernetes Job that runs `gax submit`, if one does.
        now: For the date.

    Raises:
        UsageError: It is not a whole RayJob.
    """
    metadata = template.get("metadata") or {}
    survey = str((metadata.get("labels") or {}).get(SURVEY_LABEL) or metadata.get("name", ""))
    if not survey or not isinstance(template.get("spec"), dict):
        raise UsageError("the template has no metadata.name or no spec; give a whole RayJob")
    if name is None and owner is not None:
        name = str(owner["metadata"]["name"])
    return Night(name or f"{metadata['name']}-{now or datetime.now(UTC):%Y%m%d}", template, survey, owner)


def read_outcome(job: Object) -> Outcome:
    """How a RayJob ended, from its status."""
    status = job.get("status") or {}
    message = str(status.get("message") or "")
    found = _EXIT_CODE.search(message)
    code = int(found[1]) if found and 0 < int(found[1]) < 256 else None
    reason = str(status.get("reason") or status.get("jobDeploymentStatus"))
    again = (
        status.get("jobDeploymentStatus") == "Failed"
        and reason not in _FINAL_REASONS
        and code not in _FINAL_CODES
        # `ray job stop`: somebody meant it.
        and status.get("jobStatus") != "STOPPED"
    )
    return Outcome(has_succeeded(job), code, reason, message, again)


def attempt_number(job: Object) -> int:
    """The number at the end of a RayJob's name; 0 where there is none."""
    found = re.search(r"-(\d+)$", str(job["metadata"]["name"]))
    return int(found[1]) if found else 0


def has_ended(job: Object) -> bool:
    """Whether nothing of a RayJob runs any more, or will."""
    return (job.get("status") or {}).get("jobDeploymentStatus") in ENDED


def has_succeeded(job: Object) -> bool:
    """Whether the run of a RayJob ended with 0."""
    status = job.get("status") or {}
    return status.get("jobDeploymentStatus") == "Complete" and status.get("jobStatus") == "SUCCEEDED"


def is_over(owner: Object | None) -> bool:
    """Whether a Kubernetes Job will start no other pod: it is gone, ended, suspended or being deleted."""
    if owner is None or owner["metadata"].get("deletionTimestamp") or owner["spec"].get("suspend"):
        return True
    ends = ("Complete", "Failed", "FailureTarget", "SuccessCriteriaMet")
    conditions = (owner.get("status") or {}).get("conditions") or []
    return any(c.get("type") in ends and c.get("status") == "True" for c in conditions)


def epoch(timestamp: str) -> float:
    """Seconds since 1970 of a Kubernetes timestamp."""
    return datetime.fromisoformat(timestamp).timestamp()


def _reference(owner: Object) -> Object:
    # With blockOwnerDeletion, OwnerReferencesPermissionEnforcement asks for a right to the owner's
    # finalizers.
    metadata = owner["metadata"]
    return {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
