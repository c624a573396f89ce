"""A Kubernetes control plane in this process, with its controllers of Jobs, and KubeRay's operator.

Each rule names its source. `k8s` is https://kubernetes.io/docs/concepts/. Time is virtual: it passes when the
process under test sleeps, so that a night of 20 hours takes a second.
"""

import copy
import json
import math
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes_api import status
from ray_operator import RayOperator, Run

Object = dict[str, Any]
Process = Callable[[list[str]], int]

OWNER_KINDS = {"Job": "jobs", "RayJob": "rayjobs", "RayCluster": "rayclusters", "CronJob": "cronjobs"}
# k8s workloads/controllers/job: the two labels of every pod of a Job, and their older names.
JOB_NAME, JOB_UID = "batch.kubernetes.io/job-name", "batch.kubernetes.io/controller-uid"


@dataclass
class ControlPlane:
    """The objects of one namespace and the controllers that act on them; tests set and read the fields.

    Args:
        runs: What the entry point of each new RayCluster does, in the order of their creation; the last one
            repeats. pace: Virtual seconds per second that the process under test sleeps.
    """

    runs: list[Run] = field(default_factory=lambda: [Run()])
    pace: float = 1.0
    now: float = datetime(2026, 11, 7, 2, 30, tzinfo=UTC).timestamp()
    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    fault: Callable[[str, str], int | None] = lambda method, path: None
    rules: list[Object] | None = None
    """Of the role of the process under test; None allows everything."""
    at: dict[float, Callable[[], None]] = field(default_factory=dict)
    """What happens to the cluster from outside, by its time."""
    deleted: list[str] = field(default_factory=list)
    _uids: int = 0
    _terminated: bool = False

    def __post_init__(self) -> None:
        self.operator = RayOperator(self)
        for plural, name in (("serviceaccounts", "gax-batch"), ("configmaps", "gax-survey")):
            self.create(plural, {"metadata": {"name": name}})

    # The API server

    def names(self, plural: str) -> list[str]:
        return [name for kind, name in self.objects if kind == plural]

    def get(self, plural: str, name: str) -> Object | None:
        return self.objects.get((plural, name))

    def create(self, plural: str, body: Object) -> bool:
        """Add an object; False where its name is taken.

        k8s overview/working-with-objects/names: only one object of a kind can have a name at a time.
        """
        name = body["metadata"]["name"]
        if (plural, name) in self.objects:
            return False
        self._uids += 1
        made = copy.deepcopy(body)
        made["metadata"] |= {"uid": f"uid-{self._uids}", "creationTimestamp": self.timestamp()}
        # A status is a resource of its own: what a creation says of it is dropped.
        made["status"] = {}
        self.objects[plural, name] = made
        return True

    def delete(self, plural: str, name: str) -> None:
        """Delete an object, or, where a finalizer holds it, mark it.

        k8s overview/working-with-objects/finalizers: it stays, with a deletionTimestamp, until its list is
        empty.
        """
        found = self.objects[plural, name]
        if found["metadata"].get("finalizers"):
            found["metadata"].setdefault("deletionTimestamp", self.timestamp())
            return
        del self.objects[plural, name]
        self.deleted.append(f"{plural}/{name}")

    def timestamp(self) -> str:
        return datetime.fromtimestamp(self.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def answer(self, method: str, url: str, body: Any) -> tuple[int, Any]:
        path, query = urlsplit(url).path, parse_qs(urlsplit(url).query)
        parts = path.strip("/").split("/")
        _, plural, *rest = parts[parts.index("namespaces") + 1 :]
        name = rest[0] if rest else ""
        verb = {"POST": "create", "DELETE": "delete"}.get(method, "get" if name else "list")
        resource = "/".join([plural, *rest[1:]])
        if not self._allows(verb, resource, parts[1] if parts[0] == "apis" else ""):
            return 403, status(403, f"cannot {verb} resource {resource}")
        if method == "POST":
            if self.get(plural, body["metadata"]["name"]):
                return 409, status(409, f'{plural} "{body["metadata"]["name"]}" already exists')
            if "dryRun" not in query:
                self.create(plural, body)
            return 201, body
        if not name:
            return 200, {"items": self._selected(plural, query)}
        found = self.get(plural, name)
        if found is None:
            return 404, status(404, f'{plural} "{name}" not found')
        if rest[1:] == ["log"]:
            lines = found.get("log", "").splitlines()[-int(query["tailLines"][0]) :]
            return 200, "\n".join(lines) + "\n"
        if method == "DELETE":
            self.delete(plural, name)
        return 200, found

    def _allows(self, verb: str, resource: str, group: str) -> bool:
        # k8s ../reference/access-authn-authz/rbac: what no rule allows is forbidden.
        return self.rules is None or any(
            group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]
            for rule in self.rules
        )

    def _selected(self, plural: str, query: dict[str, list[str]]) -> list[Object]:
        key, _, value = query.get("labelSelector", [""])[0].partition("=")
        found = [copy.deepcopy(item) for (kind, _), item in self.objects.items() if kind == plural]
        return [item for item in found if not key or item["metadata"].get("labels", {}).get(key) == value]

    # Time, and the controllers that act while it passes

    def sleep(self, seconds: float) -> None:
        """Let time pass, in steps of at most 30 seconds."""
        ends = self.now + seconds * self.pace
        while self.now < ends:
            self.now = min(self.now + 30, ends)
            for moment in sorted(when for when in self.at if when <= self.now):
                self.at.pop(moment)()
            self.reconcile()
            if self._terminated:
                # k8s workloads/pods/pod-lifecycle#pod-termination: its process gets SIGTERM.
                self._terminated = False
                signal.raise_signal(signal.SIGTERM)

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def reconcile(self) -> None:
        self.operator.reconcile()
        for name in self.names("jobs"):
            self._end_late_job(self.objects["jobs", name])
        self.collect()

    def collect(self) -> None:
        """k8s architecture/garbage-collection: objects whose owners are all gone are deleted, in the
        background."""
        lost = [
            key
            for key, item in self.objects.items()
            if item["metadata"].get("ownerReferences")
            and not any(self._exists(owner) for owner in item["metadata"]["ownerReferences"])
            and "deletionTimestamp" not in item["metadata"]
        ]
        for plural, name in lost:
            # The pod in which the process under test runs is of the night's Job, which is gone.
            self._terminated |= plural == "pods" and "log" not in self.objects[plural, name]
            self.delete(plural, name)
        if lost:
            self.collect()

    def _exists(self, owner: Object) -> bool:
        found = self.get(OWNER_KINDS[owner["kind"]], owner["name"])
        return found is not None and found["metadata"]["uid"] == owner["uid"]

    def _end_late_job(self, job: Object) -> None:
        # k8s workloads/controllers/job#job-termination-and-cleanup: at activeDeadlineSeconds all its pods are
        # terminated and its status is Failed with the reason DeadlineExceeded, whatever backoffLimit says.
        limit = job["spec"].get("activeDeadlineSeconds", math.inf)
        if not _ended(job) and self.now >= _epoch(job["metadata"]["creationTimestamp"]) + limit:
            self._end_job(job, "Failed", "DeadlineExceeded")
            self._terminated = True

    def _end_job(self, job: Object, kind: str, reason: str) -> None:
        job["status"].setdefault("conditions", []).append({"type": kind, "status": "True", "reason": reason})

    # CronJob -> Job -> Pod

    def fire(self, cron: Object, name: str | None = None) -> Object | None:
        """The schedule's time has come; returns the new Job, or None where the concurrency policy skips it.

        kubernetes/pkg/controller/cronjob/utils.go: a Job has the CronJob's name and the minutes since 1970.
        k8s workloads/controllers/cron-jobs#concurrency-policy: Forbid skips a run while one has not finished.
        """
        running = [job for job in self._selected("jobs", {}) if not _ended(job) and _is_of(job, cron)]
        if running and cron["spec"]["concurrencyPolicy"] == "Forbid":
            return None
        name = name or f"{cron['metadata']['name']}-{int(self.now // 60)}"
        owner = {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "name": cron["metadata"]["name"],
            "uid": cron["metadata"].get("uid", ""),
        }
        self.create("cronjobs", cron)
        owner["uid"] = self.objects["cronjobs", owner["name"]]["metadata"]["uid"]
        made = {"metadata": {"name": name, "ownerReferences": [owner]}} | copy.deepcopy(
            {"spec": cron["spec"]["jobTemplate"]["spec"]}
        )
        assert self.create("jobs", made)
        job = self.objects["jobs", name]
        job["status"]["startTime"] = self.timestamp()
        return job

    def run(self, job: Object, process: Process) -> str:
        """Run the pods of a Job one after another to its end; returns the condition that ends it and its
        reason.

        k8s workloads/controllers/job#pod-failure-policy: the first rule that fits decides; without one, the
        failure counts towards backoffLimit. With a policy, a pod is replaced only when it has failed.
        """
        failures = number = 0
        while not _ended(job) and self.get("jobs", job["metadata"]["name"]) is job:
            number += 1
            pod = self._start_pod(job, number)
            code = process(_arguments(pod))
            if self.get("jobs", job["metadata"]["name"]) is not job:
                return "Deleted"
            if _ended(job):
                break
            if code == 0:
                self._end_job(job, "Complete", "CompletionsReached")
                break
            match _action(job, pod, code):
                case "FailJob":
                    self._end_job(job, "Failed", "PodFailurePolicy")
                case "Count":
                    failures += 1
                    if failures > job["spec"]["backoffLimit"]:
                        self._end_job(job, "Failed", "BackoffLimitExceeded")
            # k8s workloads/controllers/job#pod-backoff-failure-policy: 10 s, 20 s, 40 s ..., at most six
            # minutes.
            self.sleep(min(360, 10 * 2**number) / self.pace)
        last = job["status"]["conditions"][-1]
        return f"{last['type']} {last['reason']}"

    def _start_pod(self, job: Object, number: int) -> Object:
        name, template = job["metadata"]["name"], job["spec"]["template"]
        labels = {JOB_NAME: name, JOB_UID: job["metadata"]["uid"], "job-name": name}
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
        metadata = {"labels": template["metadata"].get("labels", {}) | labels, "ownerReferences": [owner]}
        self.create("pods", {"metadata": {"name": f"{name}-{number}", **metadata}, "spec": template["spec"]})
        return self.objects["pods", f"{name}-{number}"]

    def evict(self, job: str) -> None:
        """Drain the node of a Job's pod.

        k8s workloads/pods/disruptions#pod-disruption-conditions: the pod gets the condition DisruptionTarget.
        """
        self._terminated = True
        pod = next(
            item for (kind, name), item in self.objects.items() if kind == "pods" and name.startswith(job)
        )
        pod["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True"}]


def _is_of(item: Object, owner: Object) -> bool:
    return any(o["name"] == owner["metadata"]["name"] for o in item["metadata"].get("ownerReferences", []))


def _ended(job: Object) -> bool:
    return any(c["type"] in ("Complete", "Failed") for c in job["status"].get("conditions", []))


def _epoch(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


def _action(job: Object, pod: Object, code: int) -> str:
    for rule in job["spec"].get("podFailurePolicy", {}).get("rules", []):
        codes = rule.get("onExitCodes")
        if codes and (code in codes["values"]) is (codes["operator"] == "In"):
            return str(rule["action"])
        kinds = {c["type"] for c in pod["status"].get("conditions", [])}
        if kinds & {c["type"] for c in rule.get("onPodConditions", [])}:
            return str(rule["action"])
    return "Count"


def _arguments(pod: Object) -> list[str]:
    """k8s tasks/inject-data-application: $(NAME) in args is the value of a variable, here of a label of the
    pod."""
    container = pod["spec"]["containers"][0]
    values = {}
    for variable in container.get("env", []):
        path = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")
        label = path.removeprefix("metadata.labels['").removesuffix("']")
        values[variable["name"]] = pod["metadata"]["labels"][label] if path else variable["value"]
    text = json.dumps(container["args"])
    for name, value in values.items():
        text = text.replace(f"$({name})", value)
    return list(json.loads(text))
