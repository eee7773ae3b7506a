"""What is shipped in monitoring/, taken apart for tests."""

import json
from collections.abc import Iterator
from pathlib import Path

import yaml

FOLDER = Path(__file__).resolve().parents[2] / "monitoring"
DASHBOARDS = sorted((FOLDER / "grafana" / "dashboards").glob("*.json"))


def rules() -> Iterator[dict]:
    """Every rule of every file."""
    for path in sorted((FOLDER / "rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def alerts() -> list[dict]:
    """Every alerting rule; an alert may have several."""
    return [rule for rule in rules() if "alert" in rule]


def panels(dashboard: Path) -> list[dict]:
    return [panel for panel in json.loads(dashboard.read_text())["panels"] if panel["type"] != "row"]


def panel_queries() -> list[tuple[str, str, str]]:
    """(dashboard, panel's title, expression) of every query."""
    return [
        (path.stem, panel["title"], target["expr"]) for path in DASHBOARDS for panel in panels(path) for target in panel["targets"]
    ]


def substituted(expr: str, run: str) -> str:
    """An expression as Grafana sends it: one run chosen, all of its nodes."""
    return expr.replace("$run", run).replace("$node", ".*")
