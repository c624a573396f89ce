"""Every rule that only KubeRay's operator checks: one change to a good job, one problem with its path."""

import copy
import re

import pytest

from gax_batch.cluster.kubernetes.rayjob import MAX_CRON_NAME, Problem, lint, lint_name, named, references
from gax_batch.errors import UsageError

HEAD = "spec.rayClusterSpec.headGroupSpec"
GROUP = "spec.rayClusterSpec.workerGroupSpecs[0]"
CLUSTER_ONLY = {
    "ray.io/cluster": "standing",
}


def good_job() -> dict:
    container = {"image": "gax-batch-cpu:1", "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": "gax-20261107"},
        "spec": {
            "entrypoint": "gax run",
            "shutdownAfterJobFinishes": True,
            "activeDeadlineSeconds": 60,
            "backoffLimit": 2,
            "rayClusterSpec": {
                "rayVersion": "2.60.0",
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": {"version": "v2"},
                "authOptions": {"mode": "token"},
                "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": copy.deepcopy(template)},
                "workerGroupSpecs": [
                    {
                        "groupName": "cpu",
                        "replicas": 0,
                        "minReplicas": 0,
                        "maxReplicas": 4,
                        "template": copy.deepcopy(template),
                    }
                ],
            },
        },
    }


def change(job: dict, path: str, value: object) -> None:
    """Set the field of a path like `spec.a[0].b`; None deletes it."""
    *way, last = [int(part) if part.isdecimal() else part for part in re.findall(r"[^.\[\]]+", path)]
    place = job
    for step in way:
        place = place.setdefault(step, {}) if isinstance(place, dict) else place[step]
    if value is None:
        place.pop(last)
    else:
        place[last] = value


def test_a_good_job_has_no_problem():
    assert lint(good_job()) == []


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"metadata.name": "g" * 48}, "metadata.name"),
        ({"metadata.name": "1-gax"}, "metadata.name"),
        ({"metadata.name": "gax."}, "metadata.name"),
        ({"spec.backoffLimit": -1}, "spec.backoffLimit"),
        ({"spec.activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds"),
        ({"spec.activeDeadlineSeconds": None}, "spec.activeDeadlineSeconds"),
        ({"spec.preRunningDeadlineSeconds": 0}, "spec.preRunningDeadlineSeconds"),
        ({"spec.ttlSecondsAfterFinished": -1}, "spec.ttlSecondsAfterFinished"),
        ({"spec.shutdownAfterJobFinishes": False}, "spec.shutdownAfterJobFinishes"),
        ({"spec.entrypoint": " "}, "spec.entrypoint"),
        ({"spec.submissionMode": "K8SJobMode"}, "spec.submissionMode"),
        (
            {"spec.deletionStrategy.deletionRules": [{"policy": "DeleteCluster", "condition": {}}]},
            "spec.deletionStrategy.deletionRules",
        ),
        (
            {
                "spec.deletionStrategy": {
                    "onSuccess": {"policy": "DeleteWorkers"},
                    "onFailure": {"policy": "DeleteCluster"},
                }
            },
            "spec.deletionStrategy.onSuccess.policy",
        ),
        (
            {
                "spec.shutdownAfterJobFinishes": False,
                "spec.deletionStrategy.deletionRules": [{"policy": "DeleteWorkers", "condition": {}}],
            },
            "spec.deletionStrategy.deletionRules[0].policy",
        ),
        (
            {"spec.submissionMode": "SidecarMode", "spec.submitterPodTemplate": good_job()["spec"]}
            | {"spec.submitterPodTemplate": {"spec": {"containers": [{"image": "x", "resources": {}}]}}},
            "spec.submitterPodTemplate",
        ),
        (
            {"spec.submissionMode": "SidecarMode", "spec.submitterConfig": {"backoffLimit": 1}},
            "spec.submitterConfig",
        ),
        ({"spec.submissionMode": "InteractiveMode"}, "spec.backoffLimit"),
        ({"spec.clusterSelector": CLUSTER_ONLY}, "spec.backoffLimit"),
        ({"spec.clusterSelector": {"cluster": "x"}, "spec.backoffLimit": 0}, "spec.clusterSelector"),
        (
            {"spec.clusterSelector": CLUSTER_ONLY, "spec.backoffLimit": 0, "spec.suspend": True},
            "spec.suspend",
        ),
        ({"spec.rayClusterSpec": None}, "spec.rayClusterSpec.headGroupSpec"),
        ({"spec.rayClusterSpec.rayVersion": "2.51.1"}, "spec.rayClusterSpec.rayVersion"),
        ({"spec.rayClusterSpec.rayVersion": None}, "spec.rayClusterSpec.rayVersion"),
        (
            {f"{HEAD}.template.spec.restartPolicy": "Always"},
            f"{HEAD}.template.spec.restartPolicy",
        ),
        (
            {f"{GROUP}.template.spec.restartPolicy": "OnFailure"},
            f"{GROUP}.template.spec.restartPolicy",
        ),
        ({f"{GROUP}.replicas": 5}, f"{GROUP}.replicas"),
        ({f"{GROUP}.maxReplicas": None}, f"{GROUP}.maxReplicas"),
        ({f"{GROUP}.suspend": True}, f"{GROUP}.suspend"),
        ({f"{GROUP}.rayStartParams.labels": "a=b"}, f"{GROUP}.rayStartParams.labels"),
        (
            {f"{GROUP}.rayStartParams.num-cpus": "1", f"{GROUP}.resources": {"CPU": "1"}},
            f"{GROUP}.rayStartParams.num-cpus",
        ),
        (
            {f"{GROUP}.template.spec.containers[0].resources.limits.memory": None},
            f"{GROUP}.template.spec.containers[0].resources.limits.memory",
        ),
        (
            {f"{GROUP}.template.spec.containers[0].image": ""},
            f"{GROUP}.template.spec.containers[0].image",
        ),
        (
            {f"{GROUP}.template.spec.containers[0].resources.limits": {"nvidia.com/gpu": 1, "cpu": 1}}
            | {f"{GROUP}.template.spec.containers[0].resources.limits.memory": "1Gi"},
            f"{GROUP}.template.spec.containers[0].image",
        ),
        ({f"{HEAD}.template.spec.containers": []}, f"{HEAD}.template.spec.containers"),
    ],
)
def test_a_broken_rule_is_named_by_its_path(changes, path):
    job = good_job()
    for field, value in changes.items():
        change(job, field, value)
    found = lint(job)
    assert path in [problem.path for problem in found]
    assert all(problem.what and problem.fix for problem in found)


def test_suspension_and_lifetime_need_the_shutdown():
    job = good_job()
    job["spec"] |= {"suspend": True, "ttlSecondsAfterFinished": 60, "shutdownAfterJobFinishes": False}
    assert [problem.path for problem in lint(job)] == [
        "spec.suspend",
        "spec.ttlSecondsAfterFinished",
        "spec.shutdownAfterJobFinishes",
    ]


def test_groups_of_one_name_are_two():
    job = good_job()
    groups = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    groups.append(copy.deepcopy(groups[0]))
    assert [p.path for p in lint(job)] == ["spec.rayClusterSpec.workerGroupSpecs[1].groupName"]


def test_a_group_with_a_gpu_and_our_cuda_image_is_good():
    job = good_job()
    container = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    container["resources"]["limits"]["nvidia.com/gpu"] = 1
    container["image"] = "registry/gax-batch-cuda:1"
    assert lint(job) == []


def test_names_have_their_kinds_lengths():
    assert list(lint_name("g" * 47, 47)) == []
    assert [problem.path for problem in lint_name("g" * 37, MAX_CRON_NAME)] == ["metadata.name"]


def test_a_problem_is_one_line():
    assert str(Problem("spec.x", "is wrong", "mend it")) == "spec.x: is wrong; mend it"


@pytest.mark.parametrize("job", [{"kind": "RayCluster", "spec": {}}, {"kind": "RayJob"}])
def test_what_is_no_job_is_the_users_mistake(job):
    with pytest.raises(UsageError, match="RayJob"):
        lint(job)


def test_a_job_made_of_a_template_has_nothing_of_its_life():
    template = good_job()
    template["metadata"] |= {
        "uid": "1",
        "resourceVersion": "2",
        "labels": {"a": "b"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "kept": "yes"},
    }
    template["spec"] |= {"suspend": True, "jobId": "gax-xyz"}
    template["status"] = {"jobStatus": "RUNNING"}
    assert named(template, "gax-1", {"c": "d"}) == {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": "gax-1", "labels": {"a": "b", "c": "d"}, "annotations": {"kept": "yes"}},
        "spec": good_job()["spec"],
    }


def test_references_are_what_a_pod_cannot_start_without():
    job = good_job()
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    head["volumes"] = [
        {"name": "a", "secret": {"secretName": "s"}},
        {"name": "b", "configMap": {"name": "c", "optional": True}},
        {"name": "c", "emptyDir": {}},
    ]
    head["containers"][0]["env"] = [
        {"name": "A", "value": "1"},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "k", "key": "x"}}},
    ]
    assert list(references(job["spec"])) == [
        (f"{HEAD}.template.spec.volumes[0].secret.secretName", "Secret", "s"),
        (f"{HEAD}.template.spec.containers[0].env[1].valueFrom.secretKeyRef.name", "Secret", "k"),
    ]
