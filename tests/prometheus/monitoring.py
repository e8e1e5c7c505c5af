"""What `deploy/monitoring` holds: rules, alerts, and the queries of the dashboard."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.service.launch import ROOT

FOLDER = ROOT / "deploy" / "monitoring"
RULES = FOLDER / "rules.yaml"
DASHBOARD = FOLDER / "grafana" / "dashboards" / "fovea.json"

PROMQL = {
    *("absent", "and", "by", "changes", "count", "histogram_quantile", "max", "on", "or", "rate", "sum", "time"),
}
"""The words of the language that rules and dashboard use."""


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """Every rule of a kind, "record" or "alert", by its name."""
    return {rule[kind]: rule for group in read("rules.yaml")["groups"] for rule in group["rules"] if kind in rule}


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def queries() -> Iterator[tuple[str, str]]:
    """Where each query of the dashboard is, and the query."""
    for panel in panels():
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], re.sub(r"label_values\((.*), \w+\)", r"\1", variable["query"])


def names(query: str) -> set[str]:
    """The metrics that a query asks for."""
    without = re.sub(r'"[^"]*"|\{[^{}"]*\}', "", re.sub(r'"[^"]*"', "", query))
    without = re.sub(r"\{[^{}]*\}|\[[^]]*\]|\b(by|on) *\([^)]*\)", "", without)
    return set(re.findall(r"(?<![\w.])[a-zA-Z_:][\w:]*", without)) - PROMQL
