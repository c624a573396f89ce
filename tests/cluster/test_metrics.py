"""A run on a cluster that is there already, with a token; its metrics scraped by a real Prometheus."""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from galaxy_images import write_images
from observability import dashboard_queries, rule_groups
from ray_nodes import ray_cluster
from waiting import free_port, http_status, wait_for

from gax_batch.catalog.snapshots import Catalog
from gax_batch.cluster.pipeline import ray_session
from gax_batch.errors import UsageError
from gax_batch.system.machine import Resources

GAX = [sys.executable, Path(__file__).parents[1] / "gax_with_fake_engine.py"]

Query = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def prometheus() -> str:
    found = shutil.which("prometheus")
    if found is None:
        pytest.skip("Prometheus is not installed; make prometheus installs it")
    return found


@contextmanager
def scraping(program: str, target_port: str, folder: Path) -> Iterator[Query]:
    """A Prometheus that scrapes one port every second, under the rules of deploy/; yields its query API."""
    port = free_port()
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": rule_groups()}))
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {"job_name": "ray", "static_configs": [{"targets": [f"127.0.0.1:{target_port}"]}]}
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings))
    process = subprocess.Popen(
        [
            program,
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
    )

    def query(expression: str) -> list[dict[str, Any]]:
        text = urllib.parse.urlencode({"query": expression})
        url = f"http://127.0.0.1:{port}/api/v1/query?{text}"
        try:
            with urllib.request.urlopen(url, timeout=10) as reply:
                answer = json.load(reply)
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{expression}: {refused.read().decode()}") from refused
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    try:
        # It listens before it has opened its store, and answers 503 until then.
        wait_for(lambda: http_status(f"http://127.0.0.1:{port}/-/ready") == 200, "Prometheus", seconds=60)
        yield query
    finally:
        process.terminate()
        process.wait(30)


def values(result: list[dict[str, Any]], label: str) -> dict[str, float]:
    return {row["metric"].get(label, ""): float(row["value"][1]) for row in result}


def test_a_run_that_joins_a_cluster_is_seen_by_prometheus_and_in_json_lines(
    prometheus, tmp_path, monkeypatch
):
    write_images(tmp_path / "images", 40)
    for number in (3, 14):
        (tmp_path / "images" / f"{number:06d}.jpg").write_bytes(b"no image")
    size = sum(path.stat().st_size for path in (tmp_path / "images").iterdir())
    settings = {"input": str(tmp_path / "images"), "catalog": str(tmp_path / "catalog"), "unit_size": 8}
    metrics = free_port()
    head = ["--num-cpus", "2", "--include-dashboard", "false", "--metrics-export-port", metrics]
    # Ray reports every ten seconds by itself.
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "500")
    with ray_cluster(*head) as (address, environment), scraping(prometheus, metrics, tmp_path) as query:
        config = settings | {"ray_address": address, "log_format": "json", "draws": 4}
        (tmp_path / "survey.yaml").write_text(yaml.safe_dump(config))
        run = subprocess.Popen(
            [*GAX, "run", "--config", tmp_path / "survey.yaml"],
            env=environment | {"GAX_FAKE_SECONDS": "1.5", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: bool(query("ray_gax_engine_use > 0")), "an engine at work", seconds=90)
        wait_for(lambda: bool(query("ray_gax_galaxies_total > 0")), "a part", seconds=60)
        (started,) = query("ray_gax_started_seconds")
        wait_for(lambda: sum(values(query("ray_gax_galaxies_total"), "run").values()) == 38, "all parts", 60)
        totals = {name: query(f"ray_gax_{name}_total") for name in ("rejects", "bytes_read", "draws")}
        steps = query("ray_gax_step_seconds_total")
        counted = query("ray_gax_unit_seconds_count")
        # Every panel and every rule is a query that this Prometheus understands, and every panel of the
        # run has data while it goes on or once it has ended.
        since = f"[{int(time.time() - float(started['value'][1])) + 5}s]"
        for text in dashboard_queries():
            assert query(text.replace("$run", ".*")) is not None
        for name in names_of_the_dashboard():
            assert query(f"last_over_time({name}{since})"), name
        output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
    lines = [json.loads(line) for line in output.splitlines()]
    (run_id,) = {line["run"] for line in lines if line["event"] == "unit"}
    assert values(totals["rejects"], "reason") == {"not_an_image": 2.0}
    assert values(totals["bytes_read"], "run") == {run_id: size}
    assert values(totals["draws"], "run") == {run_id: 38 * 4}
    assert set(values(steps, "step")) == {"read", "infer", "write"}
    assert values(steps, "step")["infer"] > 5 * 1.5
    assert values(counted, "step") == {"read": 5.0, "infer": 5.0, "write": 5.0}
    units = [line for line in lines if line["event"] == "unit"]
    assert len({line["unit"] for line in units}) == 5
    assert all(line["worker"] and line["seconds"]["infer"] >= 1.5 for line in units)
    assert run_id in lines[-1]["message"]
    assert len(Catalog(settings["catalog"]).galaxies(["galaxy_id"])) == 38


def names_of_the_dashboard() -> set[str]:
    return set(re.findall(r"\bray_\w+", " ".join(dashboard_queries())))


def test_an_address_where_nobody_listens_is_one_line_at_once():
    begun = time.monotonic()
    resources = Resources(1, None, 0, address=f"127.0.0.1:{free_port()}")
    with pytest.raises(UsageError, match=r"127\.0\.0\.1.*--ray-address"), ray_session(resources):
        pass
    assert time.monotonic() - begun < 5
