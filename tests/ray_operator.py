"""What KubeRay's operator does with RayJobs, for `control_plane`.

The names are those of functions in KubeRay's ray-operator/controllers/ray/rayjob_controller.go. Deadlines
before Running and the status check's timeout are those of version 1.7.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from control_plane import ControlPlane

Object = dict[str, Any]

FINALIZER = "ray.io/rayjob-finalizer"
CREATED_BY = {"app.kubernetes.io/created-by": "kuberay-operator"}
STATUS_CHECK_SECONDS = 300
# checkBackoffLimitAndUpdateStatusIfNeeded: reasons after which backoffLimit does not count.
FINAL_REASONS = ("DeadlineExceeded", "JobStatusCheckTimeoutExceeded")


@dataclass(frozen=True)
class Run:
    """What happens to the entry point on one cluster; all times in seconds."""

    code: int = 0
    seconds: float = 600
    """From the submission to the end of the entry point."""
    ready_seconds: float = 60
    """From the creation of the cluster until its head is ready; infinite where there is no node."""
    head_lost: float = math.inf
    """From the submission to the loss of the head."""
    stream_broken: float = math.inf
    """From the submission until the submitter's log stream breaks for good (kuberay#4921)."""
    log: str = "line 1\nline 2"


class RayOperator:
    """Acts on the RayJobs of a control plane, one step at each call."""

    def __init__(self, plane: "ControlPlane") -> None:
        self.plane = plane
        self.runs: dict[str, Run] = {}
        """By the name of the cluster."""

    def reconcile(self) -> None:
        for name in self.plane.names("rayjobs"):
            job = self.plane.objects["rayjobs", name]
            if "deletionTimestamp" in job["metadata"]:
                # Reconcile: stops the Ray job, and removes its finalizer whether or not that succeeds.
                job["metadata"]["finalizers"] = []
                self.plane.delete("rayjobs", name)
                continue
            step = getattr(self, "_" + (job["status"].get("jobDeploymentStatus") or "New").lower(), None)
            if step:
                step(job, job["status"])
                self._count_failure(job, job["status"])

    def _new(self, job: Object, status: Object) -> None:
        # initRayJobStatusIfNeed: StartTime, from which both deadlines count, is set here, anew at each retry.
        job["metadata"]["finalizers"] = [FINALIZER]
        if job["spec"].get("suspend"):
            # By Initializing and Suspending; what was made on the way is deleted again.
            status["jobDeploymentStatus"] = "Suspended"
            return
        number = len(self.runs)
        cluster = f"{job['metadata']['name']}-{number:05d}"
        self.runs[cluster] = self.plane.runs[min(number, len(self.plane.runs) - 1)]
        status |= {
            "jobDeploymentStatus": "Initializing",
            "rayClusterName": cluster,
            "startTime": self.plane.now,
        }

    def _initializing(self, job: Object, status: Object) -> None:
        if self._past(job, status, "activeDeadlineSeconds", "DeadlineExceeded"):
            return
        if self._past(job, status, "preRunningDeadlineSeconds", "PreRunningDeadlineExceeded"):
            return
        self._make_cluster(job, status)
        if self.plane.now < status["startTime"] + self._run(job).ready_seconds:
            return
        if self._mode(job) == "K8sJobMode" and not self._make_submitter(job):
            return
        status |= {"jobDeploymentStatus": "Running", "jobStatus": "PENDING", "submitted": self.plane.now}

    def _make_cluster(self, job: Object, status: Object) -> None:
        # constructRayClusterForRayJob: owned by the RayJob.
        self.plane.create("rayclusters", {"metadata": _owned(job, status["rayClusterName"])})

    def _make_submitter(self, job: Object) -> bool:
        """createK8sJobIfNeed and createNewK8sJob: a Job of exactly the RayJob's name.

        Where the operator does not see the Job of that name, it tries to create one, which the API server
        refuses; it tries again every three seconds, in the same state. A Job that it sees it takes for this
        RayJob's, even where that is left from a deleted RayJob.
        """
        name = job["metadata"]["name"]
        if self._seen(name):
            return True
        metadata = _owned(job, name) | {"labels": dict(CREATED_BY)}
        body = {"metadata": metadata, "spec": {"backoffLimit": 2}}
        if not self.plane.create("jobs", body):
            self.plane.events.append(f'FailedToCreateRayJobSubmitter: jobs.batch "{name}" already exists')
            return False
        pod = {"name": f"{name}-x7k2p", "labels": {"job-name": name}}
        self.plane.create(
            "pods", {"metadata": pod | {"ownerReferences": [_reference("Job", self.plane.get("jobs", name))]}}
        )
        self.plane.objects["pods", pod["name"]]["log"] = self._run(job).log
        return True

    def _seen(self, name: str) -> bool:
        """CacheSelectors (cache_selectors.go): the operator's cache has only the Jobs that it labeled
        itself."""
        job = self.plane.get("jobs", name)
        return job is not None and CREATED_BY.items() <= job["metadata"].get("labels", {}).items()

    def _running(self, job: Object, status: Object) -> None:
        run, since = self._run(job), self.plane.now - status["submitted"]
        if self._past(job, status, "activeDeadlineSeconds", "DeadlineExceeded"):
            return
        if self._mode(job) == "K8sJobMode":
            if not self._seen(job["metadata"]["name"]):
                return  # It asks again, for ever.
            if run.stream_broken <= since < run.seconds:
                # checkK8sJobAndUpdateStatusIfNeeded: the Job failed, but the Ray job did not.
                message = "Job submission has failed. Reason: BackoffLimitExceeded."
                self._fail(status, "SubmissionFailed", message)
                return
        if since >= run.head_lost:
            # GetJobInfo fails; after 300 seconds of it (1.7) the RayJob has failed.
            if since >= run.head_lost + STATUS_CHECK_SECONDS:
                self._fail(status, "JobStatusCheckTimeoutExceeded", "the status of the Ray job is unknown")
            return
        status["jobStatus"] = "RUNNING"
        if since < run.seconds:
            return
        if run.code == 0:
            status |= {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "endTime": self.plane.now}
            return
        status["jobStatus"] = "FAILED"
        # ray/dashboard/modules/job/job_supervisor.py: the message of a failed entry point.
        message = f"Job entrypoint command failed with exit code {run.code}, last available logs "
        self._fail(status, "AppFailed", f"{message}(truncated to 20,000 chars):\n{run.log}")

    def _retrying(self, job: Object, status: Object) -> None:
        # Reconcile: the cluster and the submitter Job are deleted, the status is reset, and all begins anew.
        self._delete_cluster(status)
        if self._seen(job["metadata"]["name"]):
            self.plane.delete("jobs", job["metadata"]["name"])
        for key in set(status) - {"failed"}:
            del status[key]

    def _complete(self, job: Object, status: Object) -> None:
        # Reconcile: after ttlSecondsAfterFinished the cluster is deleted; RayJob and submitter Job stay.
        ends = status["endTime"] + job["spec"].get("ttlSecondsAfterFinished", 0)
        if job["spec"].get("shutdownAfterJobFinishes") and self.plane.now >= ends:
            self._delete_cluster(status)

    _failed = _complete

    def _delete_cluster(self, status: Object) -> None:
        if self.plane.get("rayclusters", status["rayClusterName"]):
            self.plane.delete("rayclusters", status["rayClusterName"])

    def _past(self, job: Object, status: Object, key: str, reason: str) -> bool:
        if self.plane.now < status["startTime"] + job["spec"].get(key, math.inf):
            return False
        self._fail(status, reason, f"The RayJob has passed the {key}")
        return True

    def _fail(self, status: Object, reason: str, message: str) -> None:
        status |= {
            "jobDeploymentStatus": "Failed",
            "reason": reason,
            "message": message,
            "endTime": self.plane.now,
            "new": True,
        }

    def _count_failure(self, job: Object, status: Object) -> None:
        """checkBackoffLimitAndUpdateStatusIfNeeded: whatever the exit code, until backoffLimit is used up."""
        if not status.pop("new", False):
            return
        status["failed"] = status.get("failed", 0) + 1
        if (
            status["reason"] not in FINAL_REASONS
            and status["failed"] < job["spec"].get("backoffLimit", 0) + 1
        ):
            status["jobDeploymentStatus"] = "Retrying"

    def _run(self, job: Object) -> Run:
        return self.runs[job["status"]["rayClusterName"]]

    def _mode(self, job: Object) -> str:
        # rayjob_types.go: K8sJobMode is the default; in HTTPMode the operator submits by itself.
        return str(job["spec"].get("submissionMode", "K8sJobMode"))


def _reference(kind: str, owner: Object | None) -> Object:
    assert owner is not None
    return {
        "apiVersion": "v1",
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }


def _owned(job: Object, name: str) -> Object:
    return {"name": name, "ownerReferences": [_reference("RayJob", job)]}
