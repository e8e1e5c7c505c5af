"""Rules and dashboard ask for metrics that the service has: held against its own page, and by a real Prometheus."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from service.gpu_metrics import FIGURES as GPU
from service.tegra_metrics import FIGURES as TEGRA
from tests.conformance.models import write_simple
from tests.conformance.wire import simple_inputs
from tests.prometheus.install import PROMETHEUS, missing
from tests.prometheus.monitoring import RULES, names, panels, queries, read, rules
from tests.repositories import picture, write_model
from tests.service.launch import ROOT, RunningService, running, until

DOCUMENT = ROOT / "docs" / "observability.md"
ROLLOUTS = ROOT / "docs" / "rollouts.md"
PROMETHEUS_OWN = {"up", "ALERTS"}
ON_A_GPU = GPU.keys() | TEGRA.keys()
NOTHING_HERE = {"Alerts", "GPU", "GPU power", "GPU temperature"}
"""Panels of what a CPU has not, or has not yet."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ "colours", "simple", and one that cannot be loaded."""
    folder = tmp_path_factory.mktemp("metrics")
    write_model(folder)
    write_simple(folder)
    write_model(folder, "broken", versions=())
    return folder


@pytest.fixture(scope="module")
def service(repository: Path) -> Iterator[RunningService]:
    with running(repository) as started:
        ask(started)
        yield started


def ask(service: RunningService) -> None:
    """A request of each kind, one of them wrong."""
    with httpx.Client(base_url=service.http, timeout=60) as http:
        jpeg = {"content-type": "image/jpeg"}
        assert http.post("/v1/classify?model=colours", content=picture("red"), headers=jpeg).status_code == 200
        assert http.post("/v2/models/simple/infer", json={"inputs": simple_inputs()}).status_code == 200
        assert http.post("/v1/classify?model=colours", content=b"no image", headers=jpeg).status_code == 400


def exported(page: str) -> set[str]:
    """The names of all samples of a metrics page; of one that has no labels yet, that of its family."""
    families = list(text_string_to_metric_families(page))
    without_samples = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    return {sample.name for family in families for sample in family.samples} | without_samples


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ('sum by (job, model) (rate(a_total{code=~"5..|{x}"}[5m])) / b:c:d5m', {"a_total", "b:c:d5m"}),
        ("histogram_quantile(0.99, sum by (le) (rate(x_bucket[$__rate_interval])))", {"x_bucket"}),
        ('a > 1 and on (job) b{m="x"} > 1e6 or absent(up{})', {"a", "b", "up"}),
        ("time() - process_start", {"process_start"}),
    ],
)
def test_the_names_in_a_query(query: str, expected: set[str]) -> None:
    assert names(query) == expected


def test_rules_and_dashboard_ask_for_what_the_service_has(service: RunningService) -> None:
    known = exported(service.metrics_page()) | rules("record").keys() | PROMETHEUS_OWN | ON_A_GPU
    asked = [*queries(), *((name, rule["expr"]) for kind in ("record", "alert") for name, rule in rules(kind).items())]
    for place, query in asked:
        found = names(query)
        assert found, place
        assert found <= known, place


def test_the_documented_metrics_are_those_of_the_service(service: RunningService) -> None:
    page = service.metrics_page()
    families = {family.name + "_total" * (family.type == "counter") for family in text_string_to_metric_families(page)}
    own = {name for name in families if name.startswith(("fovea_", "nv_"))}
    table = DOCUMENT.read_text().partition("## Metrics")[2].partition("## Prometheus")[0]
    of_rollouts = set(re.findall(r"`(fovea_rollout_\w+)`", ROLLOUTS.read_text()))
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) | of_rollouts == own | ON_A_GPU


def test_the_documented_alerts_are_those_of_the_rules() -> None:
    found = re.findall(r"^\| `(Fovea\w+)` \|.*\| (?:(\d+) min )?\|$", DOCUMENT.read_text(), re.MULTILINE)
    minutes = {name: rule["for"].removesuffix("m") for name, rule in rules("alert").items()}
    assert dict(found) == {name: "" if number == "0" else number for name, number in minutes.items()}


def test_the_dashboard_answers_four_questions() -> None:
    rows = [panel["title"] for panel in panels() if panel["type"] == "row"]
    assert rows == ["Is it up?", "Is it slow?", "Where is the time?", "How full is it?"]
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_grafana_finds_the_dashboard_and_prometheus() -> None:
    (source,) = read("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = read("grafana/provisioning/dashboards/fovea.yaml")["providers"]
    assert provider["options"]["path"] == "/etc/grafana/dashboards"


@contextmanager
def prometheus(service: RunningService, folder: Path) -> Iterator[httpx.Client]:
    """Prometheus with the rules and the configuration as they are, but for the address and the intervals."""
    configuration: dict[str, Any] = read("prometheus.yaml")
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(RULES)]
    target = service.metrics.removeprefix("http://").removesuffix("/metrics")
    configuration["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    file = folder / "prometheus.yaml"
    file.write_text(yaml.safe_dump(configuration))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    data = ["--storage.tsdb.path", str(folder / "data"), "--web.listen-address", address]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([PROMETHEUS, "--config.file", file, *data], stderr=log)
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=60) as client:
            yield client
    finally:
        process.terminate()
        process.wait(60)


def is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def result(client: httpx.Client, query: str) -> list[Any]:
    answer = client.get("/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", (query, answer)
    found: list[Any] = answer["data"]["result"]
    return found


def has_result(client: httpx.Client, query: str) -> bool:
    return bool(result(client, query))


@pytest.mark.system
@pytest.mark.skipif(bool(missing()), reason=missing())
async def test_a_real_prometheus_has_an_answer_to_everything(service: RunningService, tmp_path: Path) -> None:
    with prometheus(service, tmp_path) as client:
        await until(lambda: is_ready(client))
        await until(lambda: has_result(client, 'up{job="fovea"} == 1'))
        ask(service)
        # Two looks at what the requests changed, and the rules that build on each other.
        for query in ("fovea:errors:ratio5m", "fovea:batch_size:mean5m > 0", "ALERTS"):
            await until(partial(has_result, client, query))
        for name in rules("record"):
            assert result(client, name), name
        for place, query in queries():
            if place not in NOTHING_HERE:
                assert result(client, in_place(query)), (place, query)
        (target,) = client.get("/api/v1/targets").json()["data"]["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")
        groups = client.get("/api/v1/rules").json()["data"]["groups"]
        assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
        states = {rule["name"]: rule["state"] for group in groups for rule in group["rules"] if "state" in rule}
        assert {name for name, state in states.items() if state != "inactive"} == {"FoveaModelFailed", "FoveaNotReady"}


def in_place(query: str) -> str:
    """A query of the dashboard with its variables as Grafana would fill them in."""
    for variable, value in {"job": "fovea", "namespace": ".*", "model": ".*", "__rate_interval": "1m"}.items():
        query = query.replace(f"${variable}", value)
    return query
