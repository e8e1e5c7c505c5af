"""What the autoscalers ask Prometheus comes to the figures they are to scale on, by its own promtool."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import KUBERNETES, read
from tests.service.launch import ROOT

pytestmark = pytest.mark.system

PROMTOOL = shutil.which("promtool") or shutil.which("promtool", path=ROOT / ".tools" / "prometheus" / "usr" / "bin")
TRIGGERS = read(KUBERNETES / "components" / "autoscaling-keda" / "scaled-object.yaml")["spec"]["triggers"]
RULES = read(KUBERNETES / "components" / "autoscaling-hpa" / "prometheus-adapter.yaml")["rules"]["custom"]
ASKED_BY = {"fovea_queue_seconds": "service", "fovea_requests_in_flight": "pod"}
"""The kind of object that the HorizontalPodAutoscaler asks the adapter about."""


def series(name: str, pod: str, labels: str, values: str) -> dict[str, str]:
    return {"series": f'{name}{{namespace="fovea",service="fovea",pod="{pod}",{labels}}}', "values": values}


def expected(record: str, eval_time: str, **values: float) -> dict[str, Any]:
    """A record's samples by the value of their only label; `total`: by none."""
    label = ASKED_BY.get(record.removeprefix("adapter:"))
    samples = [
        {"labels": record if name == "total" else f'{record}{{{label}="{name}"}}', "value": value}
        for name, value in values.items()
    ]
    return {"expr": record, "eval_time": eval_time, "exp_samples": samples}


def test_the_queries_give_queue_time_and_requests_in_flight(tmp_path: Path) -> None:
    if not PROMTOOL:
        pytest.skip("promtool is not installed")
    rules = [
        {"record": f"keda:{trigger['name'].replace('-', '_')}", "expr": trigger["metadata"]["query"]}
        for trigger in TRIGGERS
    ]
    for rule in RULES:
        name = rule["name"]["as"]
        objects = {"service": 'service="fovea"', "pod": 'pod=~"a|b"'}[ASKED_BY[name]]
        query = rule["metricsQuery"].replace("<<.GroupBy>>", ASKED_BY[name])
        query = query.replace("<<.LabelMatchers>>", f'namespace="fovea",{objects}')
        rules.append({"record": f"adapter:{name}", "expr": query})
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "autoscaling", "rules": rules}]}))

    # One request a second in each pod for a minute, that wait 40 ms in one and not at all in the other; then none.
    count, queue_us = "nv_inference_request_success", "nv_inference_queue_duration_us"
    labels = 'model="m",version="1"'
    given = [
        series(queue_us, "a", labels, "0+600000x4 2400000x20"),
        series(count, "a", labels, "0+15x4 60x20"),
        series(queue_us, "b", labels, "0x24"),
        series(count, "b", labels, "0+15x4 60x20"),
        series("fovea_requests_in_flight", "a", 'protocol="http"', "4x24"),
        series("fovea_requests_in_flight", "a", 'protocol="grpc"', "6x24"),
        series("fovea_requests_in_flight", "b", 'protocol="grpc"', "2x24"),
    ]
    wanted = [
        expected("keda:queue_seconds", "1m", total=0.02),
        expected("keda:queue_seconds", "5m", total=0),
        expected("keda:requests_in_flight", "2m", total=12),
        expected("adapter:fovea_queue_seconds", "1m", fovea=0.02),
        expected("adapter:fovea_queue_seconds", "5m", fovea=0),
        expected("adapter:fovea_requests_in_flight", "2m", a=10, b=2),
    ]
    test = {"interval": "15s", "input_series": given, "promql_expr_test": wanted}
    tests = {"rule_files": ["rules.yaml"], "evaluation_interval": "15s", "tests": [test]}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))
    command = [PROMTOOL, "test", "rules", str(tmp_path / "tests.yaml")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
