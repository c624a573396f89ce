"""`gax submit` against a server that speaks the Kubernetes API."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import yaml
from kubernetes_api import RUNNING, SUCCEEDED, KubernetesApi, failed, serve
from message_facts import numbers_in
from typer.testing import CliRunner
from waiting import wait_for

from gax_batch.cli import app
from gax_batch.cluster.kubernetes.api import ApiUnavailableError, connect
from gax_batch.cluster.kubernetes.night import Night, night_of
from gax_batch.cluster.kubernetes.submit import Patience, check, read_template, submit
from gax_batch.errors import FatalError, UsageError

FAST = Patience(poll_seconds=0.01, silence_seconds=0.3)
NIGHT = "gax-20261107"
FIRST, SECOND = f"{NIGHT}-1", f"{NIGHT}-2"


def pod(image: str = "gax-batch-cpu:1", **limits: str) -> dict:
    return {
        "spec": {
            "serviceAccountName": "gax-batch",
            "containers": [
                {"image": image, "resources": {"limits": {"cpu": "1", "memory": "1Gi"} | limits}},
            ],
            "volumes": [{"name": "survey", "configMap": {"name": "gax-survey"}}],
        }
    }


@pytest.fixture
def template() -> dict:
    group = {"groupName": "cpu", "replicas": 0, "minReplicas": 0, "maxReplicas": 2, "template": pod()}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": "gax"},
        "spec": {
            "entrypoint": "gax run --config /etc/gax/survey.yaml",
            "shutdownAfterJobFinishes": True,
            "activeDeadlineSeconds": 3600,
            "rayClusterSpec": {"headGroupSpec": {"template": pod()}, "workerGroupSpecs": [group]},
        },
    }


@pytest.fixture
def night(template) -> Night:
    return night_of(template, now=datetime(2026, 11, 7, 2, 30, tzinfo=UTC))


@pytest.fixture
def api(tmp_path, monkeypatch):
    api = KubernetesApi()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with serve(api, tmp_path / "kubeconfig"):
        yield api


@pytest.fixture
def cluster(api):
    return connect("surveys")


def test_a_job_is_created_watched_and_its_last_lines_shown(api, cluster, night, messages):
    api.logs = {f"{FIRST}-x7k2p": "".join(f"line {i}\n" for i in range(100)) + '{"galaxies": 5}\n'}
    assert submit(cluster, night, FAST) == 0
    for line, facts in zip(
        messages[:4], ["surveys", "Initializing", "Running RUNNING", "Complete SUCCEEDED"], strict=True
    ):
        assert NIGHT in line
        assert facts in line
    assert messages[4:] == [f"| line {i}" for i in range(81, 100)] + ['| {"galaxies": 5}']
    assert api.jobs[FIRST]["metadata"]["labels"] == {"gax-batch/survey": "gax", "gax-batch/night": NIGHT}


@pytest.mark.parametrize("code", [2, 3, 4])
def test_the_exit_code_of_the_run_is_passed_on(api, cluster, night, code, messages):
    message = (
        f"Job entrypoint command failed with exit code {code}, last available logs:\nfirst\n3 units failed"
    )
    api.course = [RUNNING, failed(message)]
    assert submit(cluster, night, replace(FAST, attempts=1)) == code
    assert messages[-3:-1] == ["| first", "| 3 units failed"]
    assert NIGHT in messages[-1]
    assert numbers_in(messages[-1], FIRST) == [str(code)]


def test_a_job_past_its_deadline_is_a_fatal_error_with_the_operators_reason(api, cluster, night):
    api.course = [RUNNING, failed("The RayJob has passed the activeDeadlineSeconds", "DeadlineExceeded")]
    with pytest.raises(FatalError, match=r"DeadlineExceeded.*The RayJob has passed"):
        submit(cluster, night, FAST)


def test_a_job_deleted_by_another_hand_is_a_fatal_error(api, cluster, night):
    api.course = [RUNNING] * 1000
    polls: list[str] = []

    def delete(method: str, path: str) -> None:
        polls.append(path)
        if len(polls) == 8:
            del api.jobs[FIRST]

    api.fault = delete
    with pytest.raises(FatalError, match=NIGHT):
        submit(cluster, night, FAST)


def test_a_running_job_of_the_night_is_adopted(api, cluster, night, messages):
    api.add(FIRST, RUNNING)
    api.jobs[FIRST]["course"] = [RUNNING, RUNNING, SUCCEEDED]
    assert submit(cluster, night, FAST) == 0
    assert NIGHT in messages[0]
    assert api.writes == []


def test_a_night_that_has_completed_is_not_started_again(api, cluster, night):
    api.add(FIRST, SUCCEEDED)
    assert submit(cluster, night, FAST) == 0
    assert api.writes == []


def test_a_night_that_failed_is_started_again(api, cluster, night):
    api.add(FIRST, failed("exit code 4"))
    assert submit(cluster, night, FAST) == 0
    # Under another name: KubeRay may still have the submitter's Job of the first.
    assert [method for method, _ in api.writes] == ["POST"]
    assert set(api.jobs) == {FIRST, SECOND}


def test_another_night_that_still_runs_is_in_the_way(api, cluster, night):
    api.add("gax-20261106", RUNNING)
    with pytest.raises(UsageError, match="gax-20261106"):
        submit(cluster, night, FAST)
    assert [problem.path for problem in check(cluster, night)] == ["metadata.name"]
    assert api.writes == []


def test_the_suspended_template_in_the_cluster_is_no_running_job(api, cluster, template):
    api.add("gax", {"jobDeploymentStatus": "Suspended"}, suspend=True, **template["spec"])
    made = night_of(read_template(cluster, "rayjob/gax"), "gax-nightly")
    assert made.attempt(1)["spec"] == template["spec"] | {"backoffLimit": 0}
    assert submit(cluster, made, FAST) == 0
    # One that waits in a queue is suspended too, but will run.
    api.add("gax-waiting-1", {"jobDeploymentStatus": "Suspended"}, suspend=True)
    with pytest.raises(UsageError, match="gax-waiting-1"):
        submit(cluster, night_of(template, "gax-other"), FAST)


@pytest.mark.parametrize("fault", [0, 429, 500, 503])
def test_a_lost_connection_is_waited_out(api, cluster, night, fault):
    # Every other request gets no answer, the creation's too, after it took effect.
    turns = iter(range(10_000))

    def unlucky(method: str, path: str) -> int | None:
        if next(turns) % 2:
            return None
        if method == "POST":
            api.jobs[FIRST] = night.attempt(1) | {"course": [RUNNING, SUCCEEDED]}
        return fault

    api.fault = unlucky
    assert submit(cluster, night, FAST) == 0
    assert list(api.jobs) == [FIRST]


def test_an_api_that_is_gone_for_good_leaves_the_job_running(api, cluster, night):
    api.course = [RUNNING] * 1000
    api.fault = lambda method, path: 503 if len(api.requests) > 6 else None
    with pytest.raises(ApiUnavailableError, match="503") as error:
        submit(cluster, night, FAST)
    assert error.value.exit_code == 75
    assert FIRST in api.jobs


def test_what_the_role_does_not_allow_is_the_users_mistake(api, cluster, night):
    api.fault = lambda method, path: 403 if method == "POST" else None
    with pytest.raises(UsageError, match=r"gax-submit.*surveys"):
        submit(cluster, night, FAST)


def test_old_jobs_of_the_survey_are_deleted(api, cluster, night):
    for day in range(1, 6):
        api.add(f"gax-2026110{day}", SUCCEEDED if day % 2 else failed("no"))
    api.add("other-20261101", SUCCEEDED, survey="other")
    submit(cluster, night, Patience(poll_seconds=0.01, silence_seconds=0.3, keep=3))
    assert set(api.jobs) == {"gax-20261104", "gax-20261105", "other-20261101", FIRST}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from gax_batch.cli import main; main()", "submit", *arguments]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_ends_the_job(api, template, tmp_path, number):
    api.course = [RUNNING] * 1000
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(template))
    process = subprocess.Popen(
        command("--template", str(tmp_path / "job.yaml"), "--name", NIGHT),
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    wait_for(
        lambda: any(
            method == "GET" and path.endswith(f"rayjobs/{FIRST}") for method, path in api.requests[2:]
        ),
        "a look at the job",
        60,
    )
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert NIGHT in output.splitlines()[-1]
    assert api.jobs == {}


def test_check_creates_nothing_and_says_yes(api, template, tmp_path):
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(template))
    arguments = ["submit", "--template", str(tmp_path / "job.yaml"), "--check"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "gax-batch" in result.output
    assert api.jobs == {}
    assert any("dryRun=All" in path for _, path in api.requests)


def test_check_names_every_problem_with_path_and_fix(api, cluster, night):
    api.objects.clear()
    api.validate = lambda job: [("spec.entrypont", "unknown field")]
    night.template["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"] = pod(
        **{"nvidia.com/gpu": "1"}
    )
    night.template["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0][
        "envFrom"
    ] = [
        {"secretRef": {"name": "keys"}},
        {"secretRef": {"name": "more", "optional": True}},
    ]
    found = {problem.path: str(problem) for problem in check(cluster, night)}
    worker, head = (
        "spec.rayClusterSpec.workerGroupSpecs[0].template.spec",
        ("spec.rayClusterSpec.headGroupSpec.template.spec"),
    )
    assert set(found) == {
        "spec.entrypont",
        f"{worker}.containers[0].image",
        f"{worker}.serviceAccountName",
        f"{worker}.volumes[0].configMap.name",
        f"{head}.serviceAccountName",
        f"{head}.volumes[0].configMap.name",
        f"{head}.containers[0].envFrom[0].secretRef.name",
    }
    assert "CUDA" in found[f"{worker}.containers[0].image"]
    secret = found[f"{head}.containers[0].envFrom[0].secretRef.name"]
    assert re.search(r"Secret\b.*\bkeys\b.*\bsurveys\b", secret)
    assert api.jobs == {}


def test_what_may_not_be_looked_for_is_no_problem(api, cluster, night):
    api.hidden = {"serviceaccounts"}
    assert check(cluster, night) == []


def test_check_looks_at_the_survey_too(api, template, tmp_path):
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(template))
    (tmp_path / "file").write_text("")
    settings = {
        "input": str(tmp_path / "none"),
        "catalog": str(tmp_path / "file" / "catalog"),
        "bundle": str(tmp_path / "no-bundle"),
    }
    (tmp_path / "survey.yaml").write_text(yaml.safe_dump(settings))
    result = CliRunner().invoke(
        app,
        [
            "submit",
            "--template",
            str(tmp_path / "job.yaml"),
            "--check",
            "--config",
            str(tmp_path / "survey.yaml"),
        ],
    )
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert [line.split(": ")[1] for line in lines] == ["survey.input", "survey.catalog", "survey.bundle"]


@pytest.mark.parametrize("text", ["", "kind: Job\n", "a: [", "kind: RayJob\n---\nkind: RayJob\n"])
def test_a_template_that_is_none_is_the_users_mistake(cluster, tmp_path, text):
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"job\.yaml"):
        read_template(cluster, str(tmp_path / "job.yaml"))


def test_a_template_that_is_not_in_the_cluster_is_named(cluster):
    with pytest.raises(UsageError, match=r"rayjob/none.*surveys"):
        read_template(cluster, "rayjob/none")


def test_no_cluster_is_one_line(tmp_path):
    environment = os.environ | {"KUBECONFIG": str(tmp_path / "none")}
    environment.pop("KUBERNETES_SERVICE_HOST", None)
    done = subprocess.run(
        command("--template", "rayjob/x"), env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "KUBECONFIG" in done.stderr
    assert len(done.stderr.splitlines()) == 1
