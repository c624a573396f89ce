"""What the Kubernetes component for Prometheus and Grafana queries."""

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
OBSERVABILITY = ROOT / "deploy" / "kubernetes" / "components" / "observability"


def rule_groups() -> list[dict[str, Any]]:
    """The alert rules as Prometheus itself reads them."""
    groups: list[dict[str, Any]] = yaml.safe_load((OBSERVABILITY / "rules.yaml").read_text())["spec"][
        "groups"
    ]
    return groups


def dashboard_queries() -> list[str]:
    """Every query of the dashboard, the one of its variable as a query for a series too."""
    dashboard = json.loads((OBSERVABILITY / "dashboard.json").read_text())
    names = [v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    series = [name.removeprefix("label_values(").split(",")[0] for name in names]
    return series + [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
