"""The component for Prometheus and Grafana: rendered, its rules tried, its names those of the code."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from observability import OBSERVABILITY, dashboard_queries, rule_groups

from gax_batch.cluster.kubernetes.rayjob import pods
from gax_batch.cluster.metrics import COUNTERS, GAUGES, HISTOGRAMS

KUBERNETES = OBSERVABILITY.parents[1]
OTHERS = {
    "ray_object_store_memory",
    "kube_cronjob_status_last_successful_time",
    "kube_cronjob_created",
}


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed; make prometheus installs it")
    return found


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The nightly overlay with the component taken in, as its file says how."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    folder = tmp_path_factory.mktemp("k") / "kubernetes"
    shutil.copytree(KUBERNETES, folder)
    file = folder / "overlays" / "nightly" / "kustomization.yaml"
    text = re.sub(r"# components:.*\n#   - ", "components:\n  - ", file.read_text())
    assert "\ncomponents:\n  - ../../components/observability\n" in text
    file.write_text(text)
    done = subprocess.run(["kubectl", "kustomize", file.parent], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def of_kind(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [d for d in documents if d["kind"] == kind and d["metadata"]["name"] == name]
    return found


def test_the_monitor_finds_the_port_of_head_and_workers_and_may_reach_it(rendered):
    monitor = of_kind(rendered, "PodMonitor", "gax-batch")["spec"]
    policy = of_kind(rendered, "NetworkPolicy", "gax-batch-metrics")["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    job = of_kind(rendered, "RayJob", "gax-batch")["spec"]
    found = []
    for group in [job["rayClusterSpec"]["headGroupSpec"], *job["rayClusterSpec"]["workerGroupSpecs"]]:
        labels = group["template"]["metadata"]["labels"]
        ports = {p["name"]: p["containerPort"] for p in group["template"]["spec"]["containers"][0]["ports"]}
        for selector in (monitor["selector"], policy["podSelector"]):
            assert selector["matchLabels"].items() <= labels.items()
        found.append(ports[endpoint["port"]])
    assert len(found) == len(list(pods(job))) - 1  # all but the submitter
    assert set(found) == {policy["ingress"][0]["ports"][0]["port"]}


def test_it_keeps_what_rules_and_dashboard_ask_for(rendered):
    (endpoint,) = of_kind(rendered, "PodMonitor", "gax-batch")["spec"]["podMetricsEndpoints"]
    (keep,) = [r["regex"] for r in endpoint["metricRelabelings"] if r["action"] == "keep"]
    for name in asked_for() - {name for name in OTHERS if name.startswith("kube_")}:
        assert re.fullmatch(keep, name), name


def test_kubernetes_own_objects_are_valid(rendered):
    for name in ("NetworkPolicy", "ConfigMap"):
        for document in rendered:
            if document["kind"] == name:
                kubernetes_validate.validate(document, "1.33", strict=True)
    config = of_kind(rendered, "ConfigMap", "gax-dashboard")
    assert config["metadata"]["labels"] == {"grafana_dashboard": "1"}
    assert json.loads(config["data"]["dashboard.json"])["title"] == "gax-batch: a run"


def asked_for() -> set[str]:
    expressions = [rule["expr"] for group in rule_groups() for rule in group["rules"]] + dashboard_queries()
    return set(re.findall(r"\b(?:ray|kube)_\w+", " ".join(expressions)))


def test_rules_and_dashboard_ask_only_for_what_is_exported():
    exported = {f"ray_{name}_total" for name in COUNTERS} | {f"ray_{name}" for name in GAUGES}
    exported |= {f"ray_{name}_bucket" for name in HISTOGRAMS}
    assert asked_for() - OTHERS <= exported
    # And everything that is exported is shown somewhere.
    assert exported <= asked_for()


def test_a_dashboards_panels_lie_beside_each_other():
    panels = json.loads((OBSERVABILITY / "dashboard.json").read_text())["panels"]
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_a_late_night_is_told_before_its_deadline(rendered):
    (rule,) = [r for g in rule_groups() for r in g["rules"] if r["alert"] == "GaxNightLate"]
    seconds = int(rule["expr"].rsplit(">", 1)[1])
    assert seconds < of_kind(rendered, "RayJob", "gax-batch")["spec"]["activeDeadlineSeconds"]


def test_promtool_finds_the_rules_well_formed_and_they_fire_when_they_should(promtool, tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": rule_groups()}))
    shutil.copy(Path(__file__).with_name("alerts.yaml"), tmp_path / "alerts.yaml")
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", "alerts.yaml"]):
        done = subprocess.run([promtool, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
