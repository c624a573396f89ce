"""Every overlay as kubectl renders it: strict schemas, our own rules, and what an operator relies on."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kuberay_schemas
import kubernetes_validate
import pytest
import yaml

from gax_batch.cluster.kubernetes.api import ApiUnavailableError
from gax_batch.cluster.kubernetes.rayjob import MAX_CRON_NAME, MAX_NAME, lint, lint_name, named, pods
from gax_batch.runner.settings import RunSettings

KUBERNETES = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
# Kinds of other operators, whose schemas are not Kubernetes' own.
RAY, KUEUE = ("RayJob", "RayCronJob"), ("LocalQueue",)
LEAST_KUBECTL = (1, 27)


@pytest.fixture(scope="session")
def kubectl() -> str:
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not installed")
    said = subprocess.run([found, "version", "--client", "-o", "json"], capture_output=True, check=True)
    version = json.loads(said.stdout)["clientVersion"]
    if (int(version["major"]), int(re.sub(r"\D", "", version["minor"]))) < LEAST_KUBECTL:
        pytest.skip(f"kubectl {version['gitVersion']} has a Kustomize that is too old; 1.27 has a good one")
    return found


@pytest.fixture(scope="session")
def schemas() -> Path:
    folder = os.environ.get("GAX_KUBERAY_SCHEMAS")
    if not folder:
        pytest.skip("GAX_KUBERAY_SCHEMAS does not name the folder of KubeRay's schemas")
    return Path(folder)


@pytest.fixture(scope="session")
def rendered(kubectl: str) -> dict[str, list[dict[str, Any]]]:
    overlays = {}
    for name in OVERLAYS:
        command = [kubectl, "kustomize", str(KUBERNETES / "overlays" / name)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        overlays[name] = list(yaml.safe_load_all(text))
    return overlays


def of_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [document for document in documents if document["kind"] == kind]
    return found


def ray_job(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """The overlay's job; that of a RayCronJob as it would create it."""
    crons = [document for document in documents if document["kind"] == "RayCronJob"]
    if not crons:
        return of_kind(documents, "RayJob")
    return {"kind": "RayJob", "metadata": {"name": "gax"}, "spec": crons[0]["spec"]["jobTemplate"]}


def test_the_overlays_are_those_of_the_handbook():
    assert set(OVERLAYS) == {"cpu", "gpu", "gpu-spot", "kueue", "nightly", "raycronjob"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_own_objects_are_valid_and_hold_no_unknown_field(rendered, overlay):
    for document in rendered[overlay]:
        if document["kind"] not in RAY + KUEUE:
            kubernetes_validate.validate(document, "1.33", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kuberays_objects_are_valid_and_hold_no_unknown_field(rendered, schemas, overlay):
    for document in rendered[overlay]:
        if document["kind"] in RAY:
            assert kuberay_schemas.problems(document, kuberay_schemas.load(schemas, document["kind"])) == []


def test_the_schema_check_finds_a_typo_a_wrong_type_and_a_broken_rule(rendered, schemas):
    job = of_kind(rendered["cpu"], "RayJob")
    spec = job["spec"] | {
        "entrypont": "x",
        "backoffLimit": "two",
        "deletionStrategy": {"onSuccess": {"policy": "DeleteCluster"}},
    }
    found = dict(kuberay_schemas.problems(job | {"spec": spec}, kuberay_schemas.load(schemas, "RayJob")))
    assert "entrypont" in found["spec"]
    assert "integer" in found["spec.backoffLimit"]
    assert "onFailure" in found["spec.deletionStrategy"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_operators_own_rules_hold(rendered, overlay):
    assert lint(ray_job(rendered[overlay])) == []
    for document in rendered[overlay]:
        if document["kind"] in ("RayCronJob", "CronJob"):
            assert list(lint_name(document["metadata"]["name"], MAX_CRON_NAME)) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_locked_down_and_bounded(rendered, overlay):
    specs = [pod.spec for pod in pods(ray_job(rendered[overlay])["spec"])]
    specs += [
        document["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        for document in rendered[overlay]
        if document["kind"] == "CronJob"
    ]
    for spec in specs:
        security = spec["securityContext"]
        assert security["runAsNonRoot"]
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["serviceAccountName"]
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            for amounts in (container["resources"]["requests"], container["resources"]["limits"]):
                assert {"cpu", "memory", "ephemeral-storage"} <= set(amounts)
            # What is written goes to volumes, each of which is bounded.
            mounted = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
            bounds = {v["name"]: v["emptyDir"]["sizeLimit"] for v in spec["volumes"] if "emptyDir" in v}
            assert mounted == set(bounds)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_head_does_no_work_and_workers_start_from_none(rendered, overlay):
    spec = ray_job(rendered[overlay])["spec"]
    cluster = spec["rayClusterSpec"]
    assert spec["shutdownAfterJobFinishes"]
    assert 0 < spec["backoffLimit"] < 10
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in cluster["workerGroupSpecs"]:
        if overlay == "kueue":
            assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
        else:
            assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
        (container,) = group["template"]["spec"]["containers"]
        grace = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
        assert grace < group["template"]["spec"]["terminationGracePeriodSeconds"]
    assert cluster.get("enableInTreeAutoscaling", False) is (overlay != "kueue")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_engines_fit_their_workers(rendered, overlay):
    spec = ray_job(rendered[overlay])["spec"]
    asked = dict(re.findall(r"--(workers|engine-cpus|engine-gpus) (\d+)", spec["entrypoint"]))
    group = spec["rayClusterSpec"]["workerGroupSpecs"][0]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert int(asked["workers"]) == group["maxReplicas"]
    # A reader and the writer need a core beside the engine.
    assert int(asked["engine-cpus"]) + 1 <= int(limits["cpu"])
    assert asked.get("engine-gpus", "0") == limits.get("nvidia.com/gpu", "0")


def test_the_survey_in_the_cluster_is_a_configuration_of_gax_run(rendered):
    for documents in rendered.values():
        text = of_kind(documents, "ConfigMap")["data"]["survey.yaml"]
        RunSettings(**yaml.safe_load(text))


@pytest.mark.parametrize("overlay", ["gpu-spot", "nightly", "raycronjob"])
def test_only_workers_go_to_spot_nodes(rendered, overlay):
    cluster = ray_job(rendered[overlay])["spec"]["rayClusterSpec"]

    def operators(spec: dict[str, Any]) -> set[str]:
        affinity = spec.get("affinity", {}).get("nodeAffinity", {})
        terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {"nodeSelectorTerms": []})
        return {e["operator"] for term in terms["nodeSelectorTerms"] for e in term["matchExpressions"]}

    spot, on_demand = cluster["workerGroupSpecs"]
    assert operators(cluster["headGroupSpec"]["template"]["spec"]) == {"NotIn"}
    assert operators(spot["template"]["spec"]) == {"In"}
    assert operators(on_demand["template"]["spec"]) == set()
    assert spot["priority"] > on_demand.get("priority", 0)


def test_a_night_follows_another_without_meeting_it(rendered):
    cron = of_kind(rendered["nightly"], "CronJob")["spec"]
    night = cron["jobTemplate"]["spec"]
    job = ray_job(rendered["nightly"])["spec"]
    assert cron["concurrencyPolicy"] == "Forbid"
    assert job["activeDeadlineSeconds"] < night["activeDeadlineSeconds"] < 24 * 3600
    pod = night["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > 30
    arguments = pod["containers"][0]["args"]
    assert arguments[:3] == [
        "submit",
        "--template",
        f"rayjob/{ray_job(rendered['nightly'])['metadata']['name']}",
    ]
    # A CronJob's Job has the schedule's minutes since 1970 at its end.
    name = f"{of_kind(rendered['nightly'], 'CronJob')['metadata']['name']}-29891670"
    assert list(lint_name(f"{name}-1", MAX_NAME)) == []


def test_the_template_of_the_nights_is_suspended_and_its_copies_are_not(rendered):
    template = of_kind(rendered["nightly"], "RayJob")
    assert template["spec"]["suspend"] is True
    assert "suspend" not in named(template, "gax-nightly-1", {})["spec"]


def test_the_role_of_submit_allows_what_it_asks_and_no_more(rendered):
    rules = of_kind(rendered["nightly"], "Role")["rules"]
    allowed = {(r, verb) for rule in rules for r in rule["resources"] for verb in rule["verbs"]}
    assert allowed == {
        *(("rayjobs", verb) for verb in ("get", "list", "create", "delete")),
        ("rayclusters", "get"),
        ("jobs", "get"),
        ("pods", "list"),
        ("pods/log", "get"),
        ("configmaps", "get"),
        ("serviceaccounts", "get"),
    }


def test_buckets_images_and_schedule_stand_in_one_file(kubectl, tmp_path):
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    file = tmp_path / "kubernetes" / "overlays" / "nightly" / "kustomization.yaml"
    text = file.read_text()
    for old, new in [
        ("s3://YOUR-SURVEY", "gs://sky"),
        ("s3://YOUR-CATALOG", "gs://results"),
        ("newName: ghcr.io/your-org/", "newName: registry.example.org/"),
        ("newTag: 0.1.0", "newTag: 1.2.3"),
        ("30 2 * * *", "0 4 * * *"),
    ]:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)
    done = subprocess.run([kubectl, "kustomize", file.parent], capture_output=True, text=True, check=True)
    assert not re.search(r"YOUR-|your-org|0\.1\.0|30 2", done.stdout)
    assert done.stdout.count("registry.example.org/gax-batch-cpu:1.2.3") == 3
    assert done.stdout.count("registry.example.org/gax-batch-cuda:1.2.3") == 2


def test_a_night_is_planned_with_the_files_and_keys_of_the_run(rendered):
    pod = of_kind(rendered["nightly"], "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    head = ray_job(rendered["nightly"])["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (planner,), (driver,) = pod["containers"], head["containers"]
    assert "--plan-first" in planner["args"]
    assert planner["envFrom"] == driver["envFrom"]
    for name, container, spec in (("planner", planner, pod), ("driver", driver, head)):
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert mounted["survey"] == "/etc/gax", name
        assert volumes["survey"]["configMap"] == {"name": "gax-survey"}, name
        assert volumes["tmp"]["emptyDir"]["sizeLimit"] == "40Gi", name
        assert {"name": "TMPDIR", "value": mounted["tmp"]} in container["env"], name


def test_the_failure_policy_retries_the_api_and_not_the_run(rendered):
    rules = of_kind(rendered["nightly"], "CronJob")["spec"]["jobTemplate"]["spec"]["podFailurePolicy"][
        "rules"
    ]
    codes = {code: rule["action"] for rule in rules for code in rule.get("onExitCodes", {}).get("values", [])}
    assert codes == {2: "FailJob", 3: "FailJob", 4: "FailJob", ApiUnavailableError.exit_code: "Ignore"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_waits_for_units_and_keeps_its_processes(rendered, overlay):
    cluster = ray_job(rendered[overlay])["spec"]["rayClusterSpec"]

    def variables(container: dict[str, Any]) -> dict[str, str]:
        return {variable["name"]: variable.get("value", "") for variable in container["env"]}

    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    assert int(variables(head)["RAY_JOB_STOP_WAIT_TIME_S"]) > RunSettings.model_fields["grace"].default
    for group in cluster["workerGroupSpecs"]:
        (worker,) = group["template"]["spec"]["containers"]
        assert int(variables(worker)["RAY_idle_worker_killing_time_threshold_ms"]) >= 60_000
    if overlay != "kueue":
        allocation = variables(cluster["autoscalerOptions"])[
            "RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S"
        ]
        assert 60 <= int(allocation) <= 900


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_azure_gives_its_identity_to_every_pod_that_reads_the_storage(rendered, overlay):
    cluster = ray_job(rendered[overlay])["spec"]["rayClusterSpec"]
    templates = [cluster["headGroupSpec"]["template"], *(g["template"] for g in cluster["workerGroupSpecs"])]
    templates += [
        document["spec"]["jobTemplate"]["spec"]["template"]
        for document in rendered[overlay]
        if document["kind"] == "CronJob"
    ]
    for template in templates:
        assert template["metadata"]["labels"]["azure.workload.identity/use"] == "true"


def test_pods_reach_stores_of_the_house_and_kueue_is_asked_in_its_version(rendered):
    policy = of_kind(rendered["cpu"], "NetworkPolicy")["spec"]
    ports = {port["port"] for rule in policy["egress"] for port in rule.get("ports", [])}
    assert {53, 80, 443, 6443, 7480, 9000} <= ports
    assert of_kind(rendered["kueue"], "LocalQueue")["apiVersion"] == "kueue.x-k8s.io/v1beta2"
