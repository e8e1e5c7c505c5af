"""Every alert fires when it should, and no other with it; just short of that it stays silent."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.prometheus.install import PROMTOOL, missing
from tests.prometheus.monitoring import DASHBOARD, FOLDER, RULES, read, rules

UP = {'up{job="fovea", instance="a:8002"}': "1x60"}
INSTANCE = {"job": "fovea", "instance": "a:8002"}
CATS = {"job": "fovea", "model": "cats"}


@dataclass(frozen=True)
class Case:
    """Series, in promtool's notation with one value a minute, that make an alert fire, and some that nearly do.

    Attributes:
        after: minutes after which it fires; a minute earlier it does not, where that is said.
        labels: the alert's, but for its severity.
        summary: what the operator reads.
    """

    fires: dict[str, str]
    silent: dict[str, str]
    after: int
    labels: dict[str, str]
    summary: str
    not_yet: int | None = None


def requests(**by_code: int) -> dict[str, str]:
    """So many requests a minute."""
    return {
        f'fovea_requests_total{{job="fovea", instance="a:8002", protocol="http", model="cats", code="{code[1:]}"}}': (
            f"0+{count}x60"
        )
        for code, count in by_code.items()
    }


def of_instance(name: str, values: str, **labels: str) -> dict[str, str]:
    words = ", ".join(f'{key}="{value}"' for key, value in (INSTANCE | labels).items())
    return {f"{name}{{{words}}}": values}


def slow(quick: int, all_of_them: int) -> dict[str, str]:
    """Of so many requests a minute so many take at most a second, and the others two."""
    at_most = {"1.0": quick, "2.5": all_of_them, "+Inf": all_of_them}
    series: dict[str, str] = {}
    for le, count in at_most.items():
        name, labels = "fovea_request_duration_seconds_bucket", {"protocol": "http", "model": "cats", "le": le}
        series |= of_instance(name, f"0+{count}x60", **labels)
    return series | requests(c200=all_of_them)


def queue_time(seconds: float) -> dict[str, str]:
    labels = {"model": "cats", "version": "1"}
    return of_instance("nv_inference_queue_duration_us", f"0+{round(100 * seconds * 1e6)}x60", **labels) | of_instance(
        "nv_inference_request_success", "0+100x60", **labels
    )


FAILED = {"model": "cats", "version": "2", "reason": "no labels.txt"}
SERVED = {"model": "cats", "version": "1"}

CASES: dict[str, Case] = {
    "FoveaDown": Case(
        of_instance("up", "1 1 0x60"), of_instance("up", "1 1 0 1x60"), 4, INSTANCE, "a:8002 cannot be scraped", 2
    ),
    "FoveaAbsent": Case(
        {'up{job="another"}': "1x60"}, UP, 6, {"job": "fovea"}, "no instance of Fovea is known", not_yet=4
    ),
    "FoveaNotReady": Case(
        UP | of_instance("fovea_ready", "0x60"),
        UP | of_instance("fovea_ready", "0 0 0 0 1x60"),
        6, INSTANCE, "a:8002 is not ready", not_yet=4,
    ),
    "FoveaModelFailed": Case(
        UP | of_instance("fovea_model_failed", "1x60", **FAILED),
        UP | of_instance("fovea_model_failed", "1 stale", **FAILED),
        2, INSTANCE | FAILED, "cats version 2 could not be loaded on a:8002",
    ),
    "FoveaRestarting": Case(
        UP | of_instance("process_start_time_seconds", "100 100 200 200 300 400x60"),
        UP | of_instance("process_start_time_seconds", "100 100 200 200 300x60"),
        8, INSTANCE, "a:8002 was started 3 times in 15 minutes",
    ),
    "FoveaErrors": Case(
        UP | requests(c200=97, c500=2, c504=1), UP | requests(c200=999, c500=1, c400=500, c503=9), 12, CATS,
        "3% of the requests to cats fail",
    ),
    "FoveaBatchesFailing": Case(
        UP | of_instance("fovea_batches_failed_total", "0+1x60", **SERVED),
        UP | of_instance("fovea_batches_failed_total", "0 1x60", **SERVED),
        12, INSTANCE | SERVED, "cats version 1 fails on batches",
    ),
    "FoveaSlow": Case(
        UP | slow(quick=90, all_of_them=100), UP | slow(quick=100, all_of_them=100), 20,
        CATS | {"protocol": "http"}, "the slowest 1 % of http requests to cats take 2.35s or more",
    ),
    "FoveaRejecting": Case(
        UP | requests(c200=95, c503=5), UP | requests(c200=995, c503=5), 12, CATS,
        "5% of the requests to cats are refused",
    ),
    "FoveaQueueFilling": Case(
        UP | of_instance("fovea_queue_depth", "900x60", **SERVED)
        | of_instance("fovea_queue_limit", "1000x60", **SERVED),
        UP | of_instance("fovea_queue_depth", "900 900 700x60", **SERVED)
        | of_instance("fovea_queue_limit", "1000x60", **SERVED),
        3, INSTANCE | SERVED, "the queue of cats is 90% full on a:8002", not_yet=1,
    ),
    "FoveaQueueTime": Case(
        UP | queue_time(0.5), UP | queue_time(0.2), 20, CATS | {"version": "1"},
        "requests to cats wait 500ms for an instance",
    ),
    "FoveaFewFilesLeft": Case(
        UP | of_instance("process_open_fds", "900x60") | of_instance("process_max_fds", "1000x60"),
        UP | of_instance("process_open_fds", "700x60") | of_instance("process_max_fds", "1000x60"),
        6, INSTANCE, "a:8002 has 90% of the files open that it may",
    ),
    "FoveaGpuMemoryFull": Case(
        UP | of_instance("nv_gpu_memory_used_bytes", "98x60", gpu_uuid="GPU-1")
        | of_instance("nv_gpu_memory_total_bytes", "100x60", gpu_uuid="GPU-1"),
        UP | of_instance("nv_gpu_memory_used_bytes", "90x60", gpu_uuid="GPU-1")
        | of_instance("nv_gpu_memory_total_bytes", "100x60", gpu_uuid="GPU-1"),
        6, INSTANCE | {"gpu_uuid": "GPU-1"}, "the memory of GPU GPU-1 is 98% full",
    ),
    "FoveaGpuHot": Case(
        UP | of_instance("fovea_tegra_temperature_celsius", "95x60", sensor="tj"),
        UP | of_instance("fovea_gpu_temperature_celsius", "80x60", gpu_uuid="GPU-1")
        | of_instance("fovea_tegra_temperature_celsius", "95x60", sensor="cpu"),
        6, INSTANCE | {"sensor": "tj"}, "a:8002: a GPU has 95 °C",
    ),
}  # fmt: skip


def test_every_alert_has_a_case() -> None:
    assert CASES.keys() == rules("alert").keys()


def test_every_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for name, alert in rules("alert").items():
        assert alert["labels"]["severity"] in ("critical", "warning"), name
        assert alert["annotations"].keys() == {"summary", "description"}, name


def test_the_operator_has_the_same_rules() -> None:
    assert read("prometheus_rule.yaml")["spec"] == read("rules.yaml")


def test_what_the_component_and_the_configuration_name_is_there() -> None:
    component = read("kustomization.yaml")
    files = [*component["resources"], *(file for made in component["configMapGenerator"] for file in made["files"])]
    for name in [*files, *read("prometheus.yaml")["rule_files"]]:
        assert (FOLDER / name).is_file(), name


@pytest.mark.parametrize("name", CASES)
@pytest.mark.system
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_an_alert_fires_alone_and_not_too_early(name: str, tmp_path: Path) -> None:
    case, alert = CASES[name], rules("alert")[name]
    description = re.sub(
        r"{{ \$labels\.(\w+) }}", lambda found: case.labels[found[1]], alert["annotations"]["description"]
    )
    expected = {
        "exp_labels": case.labels | alert["labels"],
        "exp_annotations": {"summary": case.summary, "description": description},
    }
    fires = _test(
        case.fires,
        [(case.after, name, [expected]), *([(case.not_yet, name, [])] if case.not_yet else [])],
        [(case.after, [{"labels": f'{{alertname="{name}"}}', "value": 1}])],
    )
    silent = _test(case.silent, [], [(minutes, []) for minutes in range(0, 60, 5)])
    _promtool({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [fires, silent]}, tmp_path)


@pytest.mark.system
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_promtool_takes_the_rules_and_the_configuration() -> None:
    for what, file in (("rules", RULES), ("config", FOLDER / "prometheus.yaml")):
        checked = subprocess.run([PROMTOOL, "check", what, file], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.system
@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kustomize_adds_the_component(tmp_path: Path) -> None:
    component = os.path.relpath(FOLDER, tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"components": [component]}))
    built = subprocess.run(["kubectl", "kustomize", tmp_path], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    found = {resource["kind"]: resource for resource in yaml.safe_load_all(built.stdout)}
    assert found.keys() == {"ConfigMap", "PrometheusRule", "ServiceMonitor"}
    assert found["ConfigMap"]["data"]["fovea.json"] == DASHBOARD.read_text()


def _test(
    series: dict[str, str],
    alerts: list[tuple[int, str, list[dict[str, Any]]]],
    firing: list[tuple[int, list[dict[str, Any]]]],
) -> dict[str, Any]:
    """One of promtool's tests.

    Args:
        alerts: what is expected of an alert after so many minutes.
        firing: which alerts fire then, of all.
    """
    query = 'count by (alertname) (ALERTS{alertstate="firing"})'
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": f"{minutes}m", "alertname": name, "exp_alerts": expected}
            for minutes, name, expected in alerts
        ],
        "promql_expr_test": [
            {"expr": query, "eval_time": f"{minutes}m", "exp_samples": samples} for minutes, samples in firing
        ],
    }


def _promtool(tests: dict[str, Any], folder: Path) -> None:
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump(tests))
    done = subprocess.run([PROMTOOL, "test", "rules", file], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
