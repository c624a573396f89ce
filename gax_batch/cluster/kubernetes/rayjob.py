"""Check a RayJob against the rules of the KubeRay operator and of this package.

The API server checks the schema. The rules here are those of the validation of KubeRay 1.7, which reports an
error only after the job was created, in its status.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gax_batch.errors import UsageError

Object = dict[str, Any]

MAX_NAME = 47
MAX_CRON_NAME = 36
GPU = "nvidia.com/gpu"
TOKEN_RAY_VERSION = (2, 52)
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of a field, and its solution.

    Attributes:
        path: Path of the field.
        what: Description of the problem.
        fix: What the user should do.
    """

    path: str
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}; {self.fix}"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod template inside a RayJob, with the path to its `spec`."""

    path: str
    spec: Object

    def containers(self) -> Iterator[tuple[str, Object]]:
        """Yield each container with its path."""
        for i, container in enumerate(self.spec.get("containers") or []):
            yield f"{self.path}.containers[{i}]", container


def named(template: Object, name: str, labels: dict[str, str]) -> Object:
    """Return a job to create from a template. It is not suspended, and without fields of the API server.

    Args:
        template: A RayJob, from a file or from the cluster.
        name: Name of the new job.
        labels: Labels to add to those of the template.
    """
    metadata = template.get("metadata") or {}
    kept = {key: metadata[key] for key in ("annotations",) if key in metadata}
    annotations = {
        key: value
        for key, value in (kept.get("annotations") or {}).items()
        if key != "kubectl.kubernetes.io/last-applied-configuration"
    }
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": name,
            "labels": (metadata.get("labels") or {}) | labels,
            **({"annotations": annotations} if annotations else {}),
        },
        "spec": {key: value for key, value in template["spec"].items() if key not in ("suspend", "jobId")},
    }


def lint(job: Object) -> list[Problem]:
    """Return the problems of a RayJob.

    Raises:
        UsageError: The template is not a RayJob.
    """
    if job.get("kind") != "RayJob" or not isinstance(job.get("spec"), dict):
        raise UsageError(f"the template is a {job.get('kind')}, not a RayJob with a spec; name a RayJob")
    spec = job["spec"]
    return [
        *lint_name(str(job["metadata"].get("name", "")), MAX_NAME),
        *_lifetime(spec),
        *_deletion(spec),
        *_submission(spec),
        *_cluster(spec),
        *_pods(spec),
    ]


def lint_name(name: str, longest: int) -> Iterator[Problem]:
    """Yield the problems of the name of a RayJob or RayCronJob.

    Args:
        name: The name.
        longest: Maximum number of characters.
    """
    if len(name) > longest:
        yield Problem(
            "metadata.name",
            f"'{name}' has {len(name)} characters",
            f"use at most {longest}",
        )
    if not _DNS_1035.fullmatch(name):
        yield Problem(
            "metadata.name",
            f"'{name}' is not a DNS-1035 label",
            "use lower-case letters, digits and dashes, beginning with a letter",
        )


def pods(spec: Object) -> Iterator[Pod]:
    """Yield the pod templates of a RayJob: submitter, head, and each group of workers."""
    cluster = spec.get("rayClusterSpec") or {}
    groups = [("spec.rayClusterSpec.headGroupSpec", cluster.get("headGroupSpec") or {})]
    groups += [
        (f"spec.rayClusterSpec.workerGroupSpecs[{i}]", group)
        for i, group in enumerate(cluster.get("workerGroupSpecs") or [])
    ]
    if spec.get("submitterPodTemplate"):
        yield Pod("spec.submitterPodTemplate.spec", spec["submitterPodTemplate"].get("spec") or {})
    for path, group in groups:
        yield Pod(f"{path}.template.spec", (group.get("template") or {}).get("spec") or {})


def references(spec: Object) -> Iterator[tuple[str, str, str]]:
    """Yield the path, kind and name of each object that the pods require to start."""
    for pod in pods(spec):
        if pod.spec.get("serviceAccountName"):
            yield f"{pod.path}.serviceAccountName", "ServiceAccount", pod.spec["serviceAccountName"]
        for i, volume in enumerate(pod.spec.get("volumes") or []):
            for key, kind, field in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
                yield from _required(f"{pod.path}.volumes[{i}].{key}", kind, volume.get(key), field)
        for path, container in pod.containers():
            for i, source in enumerate(container.get("envFrom") or []):
                for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                    yield from _required(f"{path}.envFrom[{i}].{key}", kind, source.get(key))
            for i, variable in enumerate(container.get("env") or []):
                value, here = variable.get("valueFrom") or {}, f"{path}.env[{i}].valueFrom"
                for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                    yield from _required(f"{here}.{key}", kind, value.get(key))


def _required(
    path: str, kind: str, reference: Object | None, field: str = "name"
) -> Iterator[tuple[str, str, str]]:
    if reference and not reference.get("optional"):
        yield f"{path}.{field}", kind, str(reference[field])


def _lifetime(spec: Object) -> Iterator[Problem]:
    shuts = bool(spec.get("shutdownAfterJobFinishes"))
    if spec.get("suspend") and not shuts:
        yield Problem(
            "spec.suspend", "needs shutdownAfterJobFinishes", "set spec.shutdownAfterJobFinishes: true"
        )
    if spec.get("ttlSecondsAfterFinished") and not shuts:
        yield Problem(
            "spec.ttlSecondsAfterFinished",
            "needs shutdownAfterJobFinishes",
            "set spec.shutdownAfterJobFinishes: true",
        )
    for key, least in (
        ("activeDeadlineSeconds", 1),
        ("preRunningDeadlineSeconds", 1),
        ("backoffLimit", 0),
        ("ttlSecondsAfterFinished", 0),
    ):
        if key in spec and spec[key] < least:
            yield Problem(f"spec.{key}", f"is {spec[key]}", f"use {least} or more")
    if "activeDeadlineSeconds" not in spec:
        yield Problem(
            "spec.activeDeadlineSeconds", "is missing", "limit the duration of a run and so its cost"
        )
    if not shuts and not spec.get("deletionStrategy") and not spec.get("clusterSelector"):
        yield Problem(
            "spec.shutdownAfterJobFinishes",
            "the cluster would remain after the run has ended",
            "set it to true",
        )


def _deletion(spec: Object) -> Iterator[Problem]:
    strategy = spec.get("deletionStrategy") or {}
    rules = strategy.get("deletionRules") or []
    if rules and spec.get("shutdownAfterJobFinishes"):
        yield Problem(
            "spec.deletionStrategy.deletionRules",
            "and shutdownAfterJobFinishes exclude each other",
            "keep one of the two",
        )
    if not (spec.get("rayClusterSpec") or {}).get("enableInTreeAutoscaling"):
        return
    policies = {
        f"spec.deletionStrategy.deletionRules[{i}].policy": rule.get("policy") for i, rule in enumerate(rules)
    }
    for key in ("onSuccess", "onFailure"):
        policies[f"spec.deletionStrategy.{key}.policy"] = (strategy.get(key) or {}).get("policy")
    for path, policy in policies.items():
        if policy == "DeleteWorkers":
            yield Problem(path, "DeleteWorkers is not allowed with the autoscaler", "use DeleteCluster")


def _submission(spec: Object) -> Iterator[Problem]:
    mode = spec.get("submissionMode", "K8sJobMode")
    modes = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
    if mode not in modes:
        yield Problem("spec.submissionMode", f"'{mode}' is unknown", "use one of " + ", ".join(modes))
    if not str(spec.get("entrypoint") or "").strip() and mode != "InteractiveMode":
        yield Problem("spec.entrypoint", "is missing", "name the command, as 'gax run --config FILE'")
    if mode == "SidecarMode":
        for key in ("submitterPodTemplate", "submitterConfig", "clusterSelector"):
            if spec.get(key):
                yield Problem(f"spec.{key}", "is not allowed with SidecarMode", "use K8sJobMode")
    selector = bool(spec.get("clusterSelector"))
    if spec.get("backoffLimit") and (mode == "InteractiveMode" or selector):
        yield Problem(
            "spec.backoffLimit", "requires a cluster that belongs to the job", "use K8sJobMode, or set 0"
        )
    if selector and spec.get("suspend"):
        yield Problem("spec.suspend", "is not allowed with clusterSelector", "omit one of the two")
    if selector and not (spec["clusterSelector"] or {}).get("ray.io/cluster"):
        yield Problem("spec.clusterSelector", "does not name a cluster", "set its key ray.io/cluster")
    if not selector and not (spec.get("rayClusterSpec") or {}).get("headGroupSpec"):
        yield Problem("spec.rayClusterSpec.headGroupSpec", "is missing", "describe the head's pod")


def _cluster(spec: Object) -> Iterator[Problem]:
    cluster, path = spec.get("rayClusterSpec") or {}, "spec.rayClusterSpec"
    if not cluster:
        return
    if (cluster.get("authOptions") or {}).get("mode") == "token" and (
        _version(cluster.get("rayVersion")) < TOKEN_RAY_VERSION
    ):
        yield Problem(
            f"{path}.rayVersion",
            f"is {cluster.get('rayVersion')}",
            "tokens need 2.52 or newer",
        )
    scales = bool(cluster.get("enableInTreeAutoscaling"))
    v2 = scales and (cluster.get("autoscalerOptions") or {}).get("version") == "v2"
    sidecar = spec.get("submissionMode") == "SidecarMode"
    for pod in pods({"rayClusterSpec": cluster}):
        head = ".headGroupSpec." in pod.path
        if (v2 or (sidecar and head)) and pod.spec.get("restartPolicy", "Never") != "Never":
            yield Problem(
                f"{pod.path}.restartPolicy",
                f"{pod.spec['restartPolicy']} is not allowed with {'autoscaler v2' if v2 else 'SidecarMode'}",
                "use Never",
            )
    for i, group in enumerate(cluster.get("workerGroupSpecs") or []):
        yield from _group(f"{path}.workerGroupSpecs[{i}]", group, scales=scales)
    names = [group.get("groupName") for group in cluster.get("workerGroupSpecs") or []]
    for i, name in enumerate(names):
        if name in names[:i]:
            yield Problem(f"{path}.workerGroupSpecs[{i}].groupName", f"'{name}' is used twice", "rename one")


def _group(path: str, group: Object, *, scales: bool) -> Iterator[Problem]:
    least, most = group.get("minReplicas", 0), group.get("maxReplicas", 2147483647)
    if not least <= group.get("replicas", least) <= most:
        yield Problem(
            f"{path}.replicas", f"is not between {least} and {most}", "move minReplicas or maxReplicas"
        )
    if scales and group.get("suspend"):
        yield Problem(f"{path}.suspend", "is not allowed with the autoscaler", "set minReplicas: 0 instead")
    if scales and "maxReplicas" not in group:
        yield Problem(f"{path}.maxReplicas", "is missing", "limit how many workers the autoscaler may start")
    started = group.get("rayStartParams") or {}
    both = sorted({"num-cpus", "num-gpus", "memory", "resources"} & set(started))
    if both and group.get("resources"):
        yield Problem(f"{path}.rayStartParams.{both[0]}", "duplicates resources", "keep resources")
    if "labels" in started:
        yield Problem(f"{path}.rayStartParams.labels", "is ignored", f"use {path}.labels")


def _pods(spec: Object) -> Iterator[Problem]:
    for pod in pods(spec):
        if not list(pod.containers()):
            yield Problem(f"{pod.path}.containers", "is empty", "describe the container that runs Ray")
        for path, container in pod.containers():
            limits = (container.get("resources") or {}).get("limits") or {}
            for name in ("cpu", "memory"):
                if name not in limits:
                    yield Problem(
                        f"{path}.resources.limits.{name}", "is missing", "set it: Ray sees it as the machine"
                    )
            image = str(container.get("image", ""))
            if not image:
                yield Problem(f"{path}.image", "is missing", "name the image that deploy/Dockerfile makes")
            elif str(limits.get(GPU, "0")) != "0" and "cuda" not in image:
                yield Problem(
                    f"{path}.image",
                    f"{image} has no CUDA, but the container asks for a GPU",
                    "use the image of the Dockerfile's target cuda; its name says cuda",
                )


def _version(text: object) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", str(text or "0"))[:2])
