"""Whole nights: the rendered nightly overlay in a control plane that keeps Kubernetes' and KubeRay's
rules."""

import copy
import math
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kuberay_schemas
import pytest
import yaml
from control_plane import ControlPlane
from kubernetes_api import serve
from ray_operator import Run

from gax_batch.cli import main
from gax_batch.cluster.kubernetes import submit as submit_module
from gax_batch.cluster.kubernetes.night import night_of
from gax_batch.cluster.kubernetes.rayjob import lint
from gax_batch.errors import GaxError, TransientError, UsageError
from gax_batch.runner import up_to_date
from gax_batch.runner.settings import RunSettings

NIGHTLY = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes" / "overlays" / "nightly"
JOB = "gax-nightly-29900310"
FIRST, SECOND = f"{JOB}-1", f"{JOB}-2"


@pytest.fixture(scope="module")
def overlay() -> dict[str, dict[str, Any]]:
    """The objects of the overlay by their kind; of two of a kind, the last."""
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run([found, "kustomize", NIGHTLY], capture_output=True, text=True, check=True)
    return {document["kind"]: document for document in yaml.safe_load_all(done.stdout)}


@dataclass
class Planner:
    """What `gax submit --plan-first` finds; a run's own planning is tested elsewhere."""

    up_to_date: bool | GaxError = False
    asked: list[RunSettings] = field(default_factory=list)

    def __call__(self, settings: RunSettings) -> bool:
        self.asked.append(settings)
        if isinstance(self.up_to_date, GaxError):
            raise self.up_to_date
        return self.up_to_date


@pytest.fixture
def planner(monkeypatch) -> Planner:
    planner = Planner()
    monkeypatch.setattr(up_to_date, "is_up_to_date", planner)
    return planner


@pytest.fixture
def plane(tmp_path, monkeypatch, overlay, planner):
    plane = ControlPlane(pace=30, rules=overlay["Role"]["rules"])
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(submit_module, "time", plane)
    plane.create("rayjobs", overlay["RayJob"])
    # The volume of the pods that has the survey's settings.
    (tmp_path / "survey.yaml").write_text(overlay["ConfigMap"]["data"]["survey.yaml"])
    spec = plane.objects["rayjobs", "gax-batch"]["spec"]
    spec["entrypoint"] = spec["entrypoint"].replace("/etc/gax", str(tmp_path))
    with serve(plane, tmp_path / "kubeconfig"):
        yield plane


@pytest.fixture
def job(plane, overlay) -> dict[str, Any]:
    """The night's Job, just created by the schedule."""
    made = plane.fire(overlay["CronJob"])
    assert made is not None
    assert made["metadata"]["name"] == JOB
    return made


def gax(arguments: list[str]) -> int:
    """The process of a pod, in this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gax", *arguments])
        patch.setattr(sys, "excepthook", sys.excepthook)
        with pytest.raises(SystemExit) as end:
            main()
    code = end.value.code
    assert isinstance(code, int)
    return code


def deployment(plane: ControlPlane, name: str) -> str:
    return str(plane.objects["rayjobs", name]["status"]["jobDeploymentStatus"])


def creations(plane: ControlPlane) -> int:
    return sum(method == "POST" for method, _ in plane.requests)


def test_a_rayjob_that_has_the_name_of_the_nights_job_never_runs(plane, overlay, job):
    # As the overlay named it before, and as anybody may by hand.
    body = copy.deepcopy(overlay["RayJob"])
    body["metadata"]["name"] = JOB
    del body["spec"]["suspend"]
    plane.create("rayjobs", body)
    plane.sleep(200)
    assert deployment(plane, JOB) in ("Initializing", "Retrying")
    assert f'jobs.batch "{JOB}" already exists' in plane.events[-1]
    plane.sleep(300)
    status = plane.objects["rayjobs", JOB]["status"]
    assert (status["jobDeploymentStatus"], status["reason"]) == ("Failed", "PreRunningDeadlineExceeded")
    # For an hour, three times.
    assert status["failed"] == 3


@pytest.mark.parametrize(
    ("run", "failures", "reason"),
    [
        (Run(code=2), 3, "AppFailed"),
        (Run(stream_broken=60), 3, "SubmissionFailed"),
        (Run(head_lost=60), 1, "JobStatusCheckTimeoutExceeded"),
        (Run(seconds=math.inf), 1, "DeadlineExceeded"),
    ],
    ids=["a user's mistake", "stream", "head", "deadline"],
)
def test_what_kuberays_own_limit_runs_again(plane, overlay, run, failures, reason):
    # Why it is off: it runs a mistake three times, and a lost head not at all.
    plane.runs = [run]
    body = copy.deepcopy(overlay["RayJob"])
    body["metadata"]["name"] = "alone"
    body["spec"] |= {"suspend": False, "activeDeadlineSeconds": 3600}
    assert body["spec"]["backoffLimit"] == 2
    plane.create("rayjobs", body)
    start = plane.now
    plane.sleep(200)
    status = plane.objects["rayjobs", "alone"]["status"]
    assert (status["failed"], status["reason"]) == (failures, reason)
    # Each attempt has a cluster of its own, and a deadline that begins anew.
    assert len(plane.operator.runs) == failures
    assert (status["startTime"] > start + 60) is (failures > 1)


def test_http_mode_has_no_submitter_to_collide_with(plane, overlay, job):
    body = copy.deepcopy(overlay["RayJob"])
    body["metadata"]["name"] = JOB
    body["spec"] |= {"suspend": False, "submissionMode": "HTTPMode"}
    plane.create("rayjobs", body)
    plane.sleep(60)
    assert deployment(plane, JOB) == "Complete"


def test_a_night_runs_and_belongs_to_its_job(plane, job, capsys):
    plane.runs = [Run(seconds=2 * 3600)]
    assert plane.run(job, gax) == "Complete CompletionsReached"
    assert deployment(plane, FIRST) == "Complete"
    assert plane.events == []
    assert "| line 2" in capsys.readouterr().out
    (owner,) = plane.objects["rayjobs", FIRST]["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("Job", job["metadata"]["uid"])
    plane.sleep(10)
    assert plane.names("rayclusters") == []


def test_the_rayjob_that_is_created_is_valid_and_holds_no_unknown_field(plane, overlay, job):
    folder = os.environ.get("GAX_KUBERAY_SCHEMAS")
    if not folder:
        pytest.skip("GAX_KUBERAY_SCHEMAS does not name the folder of KubeRay's schemas")
    made = night_of(overlay["RayJob"], owner=job).attempt(2, 3600.5)
    assert kuberay_schemas.problems(made, kuberay_schemas.load(Path(folder), "RayJob")) == []
    assert lint(made) == []
    assert made["spec"]["activeDeadlineSeconds"] == 3600


def test_a_night_that_is_deleted_takes_its_rayjobs_and_clusters_with_it(plane, job):
    plane.runs = [Run(seconds=2 * 3600)]
    plane.at[plane.now + 3600] = lambda: plane.delete("jobs", JOB)
    assert plane.run(job, gax) == "Deleted"
    plane.sleep(10)
    assert plane.names("rayjobs") == ["gax-batch"]
    assert plane.names("rayclusters") == []
    assert plane.names("jobs") == []


def test_the_pod_that_follows_an_evicted_one_adopts_the_rayjob(plane, job, capsys):
    plane.runs = [Run(seconds=2 * 3600)]
    plane.at[plane.now + 3600] = lambda: plane.evict(JOB)
    assert plane.run(job, gax) == "Complete CompletionsReached"
    assert creations(plane) == 1
    assert not [name for name in plane.deleted if name.startswith("rayjobs/")]
    assert (
        len([name for name in plane.names("pods") if name.startswith(f"{JOB}-")]) == 3
    )  # one is the submitter


def test_a_pod_that_is_killed_without_a_word_is_followed_by_one_that_adopts(plane, job):
    def kill() -> None:
        raise SystemExit(137)

    plane.runs = [Run(seconds=2 * 3600)]
    plane.at[plane.now + 3600] = kill
    assert plane.run(job, gax) == "Complete CompletionsReached"
    assert creations(plane) == 1


def test_a_rayjob_that_is_deleted_by_hand_ends_the_night(plane, job):
    plane.runs = [Run(seconds=2 * 3600)]
    plane.at[plane.now + 3600] = lambda: plane.delete("rayjobs", FIRST)
    assert plane.run(job, gax) == "Failed PodFailurePolicy"
    assert creations(plane) == 1
    assert plane.names("rayjobs") == ["gax-batch"]


def test_at_the_deadline_of_the_night_nothing_is_left(plane, job):
    plane.runs, plane.pace = [Run(seconds=math.inf)], 10
    # Less than the RayJob's own 20 hours.
    job["spec"]["activeDeadlineSeconds"] = 7200
    assert plane.run(job, gax) == "Failed PodFailurePolicy"
    status = plane.objects["rayjobs", FIRST]["status"]
    assert status["reason"] == "DeadlineExceeded"
    spec = plane.objects["rayjobs", FIRST]["spec"]
    assert 0 < spec["activeDeadlineSeconds"] < 7200
    plane.sleep(10)
    assert plane.names("rayclusters") == []


@pytest.mark.parametrize(
    "lost",
    [
        Run(head_lost=3600, seconds=7200),
        Run(stream_broken=3600, seconds=7200),
        Run(code=4),
        Run(code=137),
        Run(ready_seconds=math.inf),
    ],
    ids=["head", "stream", "exit 4", "out of memory", "no node"],
)
def test_a_fault_of_the_infrastructure_is_run_again(plane, job, lost):
    plane.runs = [lost, Run()]
    assert plane.run(job, gax) == "Complete CompletionsReached"
    assert (deployment(plane, FIRST), deployment(plane, SECOND)) == ("Failed", "Complete")
    # KubeRay's own retries, which ask for no reason, are off.
    assert plane.objects["rayjobs", FIRST]["status"]["failed"] == 1
    first, second = (plane.objects["rayjobs", name] for name in (FIRST, SECOND))
    assert second["spec"]["activeDeadlineSeconds"] < first["spec"]["activeDeadlineSeconds"]


def test_the_next_attempt_waits_until_the_last_ones_cluster_is_gone(plane, job):
    plane.runs = [Run(code=4), Run()]
    plane.objects["rayjobs", "gax-batch"]["spec"]["ttlSecondsAfterFinished"] = 3000
    assert plane.run(job, gax) == "Complete CompletionsReached"
    first, second = (plane.objects["rayjobs", name]["status"] for name in (FIRST, SECOND))
    assert second["startTime"] >= first["endTime"] + 3000


def test_attempts_are_counted_over_all_pods_of_the_night(plane, job):
    plane.runs = [Run(code=4)]
    plane.at[plane.now + 300] = lambda: plane.evict(JOB)
    assert plane.run(job, gax) == "Failed PodFailurePolicy"
    assert [name for name in plane.names("rayjobs") if name != "gax-batch"] == [
        f"{JOB}-{n}" for n in (1, 2, 3)
    ]


@pytest.mark.parametrize("code", [2, 3])
def test_a_users_mistake_and_failed_units_are_not_run_again(plane, job, code):
    plane.runs = [Run(code=code)]
    codes = []
    assert (
        plane.run(job, lambda arguments: codes.append(gax(arguments)) or codes[-1])
        == "Failed PodFailurePolicy"
    )
    assert codes == [code]
    assert creations(plane) == 1


def test_an_api_that_is_out_for_hours_does_not_end_the_night(plane, job):
    plane.runs = [Run(seconds=2 * 3600)]
    start = plane.now
    plane.fault = lambda method, path: 503 if 3600 < plane.now - start < 4 * 3600 else None
    codes = []
    assert (
        plane.run(job, lambda arguments: codes.append(gax(arguments)) or codes[-1])
        == "Complete CompletionsReached"
    )
    assert set(codes[:-1]) == {75}
    assert creations(plane) == 1


def test_a_quiet_night_creates_no_cluster(plane, job, planner):
    planner.up_to_date = True
    assert plane.run(job, gax) == "Complete CompletionsReached"
    assert creations(plane) == 0
    # It planned what the entry point would have run: with the survey's settings, and with its own options.
    (settings,) = planner.asked
    assert settings.catalog == "s3://YOUR-CATALOG/catalog"
    assert (settings.workers, settings.engine_gpus) == (4, 1)


def test_a_night_is_planned_once_and_not_by_the_pod_that_adopts(plane, job, planner):
    plane.runs = [Run(seconds=2 * 3600), Run()]
    plane.at[plane.now + 3600] = lambda: plane.evict(JOB)
    assert plane.run(job, gax) == "Complete CompletionsReached"
    assert len(planner.asked) == 1


def test_where_the_storage_fails_while_planning_the_run_tries(plane, job, planner):
    planner.up_to_date = TransientError("the storage is out")
    assert plane.run(job, gax) == "Complete CompletionsReached"
    assert creations(plane) == 1


def test_a_mistake_that_planning_finds_costs_no_cluster(plane, job, planner, capsys):
    planner.up_to_date = UsageError("holds no cutouts")
    assert plane.run(job, gax) == "Failed PodFailurePolicy"
    assert creations(plane) == 0
    assert "holds no cutouts" in capsys.readouterr().err


def test_the_next_night_is_skipped_while_one_runs(plane, overlay, job):
    assert plane.fire(overlay["CronJob"]) is None


def test_old_nights_are_pruned_even_when_the_last_one_failed(plane, overlay, job):
    plane.runs = [Run(code=2)]
    for day in range(1, 12):
        name = f"old-{day:02d}"
        body = {"metadata": {"name": name, "labels": overlay["RayJob"]["metadata"]["labels"]}, "spec": {}}
        plane.create("rayjobs", body)
        plane.objects["rayjobs", name]["metadata"]["creationTimestamp"] = f"2026-10-{day:02d}T00:00:00Z"
        plane.objects["rayjobs", name]["status"] = {"jobDeploymentStatus": "ValidationFailed"}
    plane.run(job, gax)
    assert sorted(plane.names("rayjobs")) == sorted(
        ["gax-batch", FIRST, *(f"old-{day:02d}" for day in range(6, 12))]
    )


def test_check_and_submit_refuse_a_name_that_another_job_has(plane, job, capsys):
    # A Job of the schedule of another survey, say.
    plane.create("jobs", {"metadata": {"name": "night-1"}, "spec": {}})
    arguments = ["submit", "--template", "rayjob/gax-batch", "--name", "night"]
    for more in (["--check"], []):
        assert gax([*arguments, *more]) == 2
        said = capsys.readouterr().err
        assert "metadata.name" in said
        assert "night-1" in said
    assert creations(plane) == sum("dryRun" in path for _, path in plane.requests)
    assert gax([*arguments[:-1], "other", "--check"]) == 0


def test_a_rayjob_of_somebody_else_is_not_adopted(plane, overlay, capsys):
    plane.create("rayjobs", {"metadata": {"name": "night-1"}, "spec": {}})
    plane.objects["rayjobs", "night-1"]["status"] = {
        "jobDeploymentStatus": "Complete",
        "jobStatus": "SUCCEEDED",
    }
    for more in (["--check"], []):
        assert gax(["submit", "--template", "rayjob/gax-batch", "--name", "night", *more]) == 2
        assert "night-1" in capsys.readouterr().err


def test_an_owner_that_is_not_there_is_the_users_mistake(plane, capsys):
    assert gax(["submit", "--template", "rayjob/gax-batch", "--owner-job", "none"]) == 2
    assert "none" in capsys.readouterr().err
