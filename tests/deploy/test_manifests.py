"""What the manifests say of the service is so: settings, ports, metrics, and the arithmetic of its end."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import CLOSE_S
from service.listeners import FLUSH_S
from service.settings import Settings
from tests.deploy.manifests import (
    COMPONENTS,
    KSERVE,
    KUBERNETES,
    OVERLAYS,
    container,
    containers,
    documents,
    files,
    literals,
    pod_of,
    read,
)
from tests.deploy.rolling_restart import SERVICE_CONFIG
from tests.repositories import picture, write_model
from tests.service.launch import ROOT, RunningService, running

HTTP_CLOSE_S = 1.0
"""How long uvicorn may take to close its connections; there are two servers, HTTP's and that of metrics."""
POD = pod_of(KUBERNETES / "base" / "deployment.yaml")
FOVEA = container(POD, "fovea")
RUNTIME, (INFERENCE_SERVICE, _) = (
    read(KSERVE / "serving-runtime.yaml"),
    documents((KSERVE / "inference-service.yaml").read_text()),
)
PORTS = {name: Settings.model_fields[f"{name}_port"].default for name in ("http", "grpc", "metrics")}
ADAPTER = KUBERNETES / "components" / "autoscaling-hpa" / "prometheus-adapter.yaml"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service that has answered one request."""
    repository = tmp_path_factory.mktemp("asked")
    write_model(repository)
    with running(repository) as service:
        httpx.post(f"{service.http}/v1/classify", content=picture("red"), headers={"content-type": "image/jpeg"})
        yield service


# Settings


def test_every_variable_is_a_setting() -> None:
    known = {f"FOVEA_{name.upper()}" for name in Settings.model_fields}
    for path in files():
        assert set(re.findall(r"FOVEA_\w+", path.read_text())) - {"FOVEA_"} <= known, path


@pytest.mark.parametrize("folder", ["overlays/" + name for name in OVERLAYS] + ["components/" + c for c in COMPONENTS])
def test_every_value_is_taken(folder: str) -> None:
    given = literals(KUBERNETES / "base") | literals(KUBERNETES / folder)
    values: dict[str, Any] = {name.removeprefix("FOVEA_").lower(): value for name, value in given.items()}
    Settings(**values)


def test_a_triton_that_is_asked_is_the_one_beside() -> None:
    settings = literals(KUBERNETES / "overlays" / "triton")
    pod = pod_of(KUBERNETES / "overlays" / "triton" / "deployment.yaml")
    flags = dict(flag.removeprefix("--").split("=") for flag in container(pod, "triton")["args"])
    assert settings["FOVEA_TRITON_ADDRESS"] == f"{flags['grpc-address']}:{flags['grpc-port']}"
    # app.py refuses every other.
    assert settings["FOVEA_MODEL_CONTROL_MODE"] == "none"
    assert flags["model-repository"] == literals(KUBERNETES / "components" / "repository-pvc")["FOVEA_MODEL_REPOSITORY"]
    taken = {int(flags[f"{name}-port"]) for name in PORTS}
    assert len(taken - set(PORTS.values())) == len(PORTS)


@pytest.mark.parametrize("component", [name for name in COMPONENTS if name.startswith("repository-")])
def test_a_repository_is_mounted_where_it_is_looked_for(component: str) -> None:
    pod = pod_of(KUBERNETES / "components" / component / "deployment.yaml")
    mounts = {mount["name"]: mount for mount in container(pod, "fovea")["volumeMounts"]}
    assert (
        mounts["repository"]["mountPath"] == literals(KUBERNETES / "components" / component)["FOVEA_MODEL_REPOSITORY"]
    )
    assert mounts["repository"]["readOnly"]


@pytest.mark.parametrize("component", COMPONENTS)
def test_what_a_setting_names_is_mounted(component: str) -> None:
    folder = KUBERNETES / "components" / component
    paths = [value for value in literals(folder).values() if value.startswith("/etc/fovea/")]
    if paths:
        pod = pod_of(folder / "deployment.yaml")
        mounted = {mount["mountPath"] for mount in container(pod, "fovea")["volumeMounts"]}
        assert {str(Path(path).parent) for path in paths} <= mounted


# Ports


def test_the_ports_are_the_settings_defaults() -> None:
    assert {port["name"]: port["containerPort"] for port in FOVEA["ports"]} == PORTS
    for name, offered in (("service.yaml", PORTS), ("service-grpc.yaml", {"grpc": PORTS["grpc"]})):
        ports = read(KUBERNETES / "base" / name)["spec"]["ports"]
        assert {port["name"]: port["port"] for port in ports} == offered
        assert all(port["targetPort"] == port["name"] for port in ports)
    # No component sets another.
    assert not [path for path in KUBERNETES.rglob("*.yaml") if re.search(r"FOVEA_\w+_PORT", path.read_text())]


def test_kserves_ports() -> None:
    (served,) = RUNTIME["spec"]["containers"]
    variables = {variable["name"]: variable["value"] for variable in served["env"]}
    (port,) = served["ports"]
    assert str(port["containerPort"]) == variables["FOVEA_HTTP_PORT"]
    assert RUNTIME["spec"]["annotations"]["prometheus.kserve.io/port"] == str(PORTS["metrics"])
    assert served["readinessProbe"]["httpGet"]["port"] == PORTS["metrics"]
    assert INFERENCE_SERVICE["spec"]["predictor"]["model"]["runtime"] == RUNTIME["metadata"]["name"]


# Probes


@pytest.mark.parametrize("probe", ["startupProbe", "readinessProbe", "livenessProbe"])
def test_a_probe_is_answered_where_it_asks(asked: RunningService, probe: str) -> None:
    request = FOVEA[probe]["httpGet"]
    assert request["port"] == "metrics"
    answer = httpx.get(asked.metrics.removesuffix("/metrics") + request["path"])
    assert answer.status_code == 200


def test_the_kubelet_is_answered_before_it_gives_up() -> None:
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert FOVEA[name]["timeoutSeconds"] <= FOVEA[name]["periodSeconds"]


# The end


@pytest.mark.parametrize("where", ["base", "kserve"])
def test_the_pods_grace_is_as_long_as_the_services_end(where: str) -> None:
    if where == "base":
        pod, served = POD, FOVEA
        grace_period_s = float(literals(KUBERNETES / "base")["FOVEA_GRACE_PERIOD_S"])
    else:
        pod, (served,) = INFERENCE_SERVICE["spec"]["predictor"], RUNTIME["spec"]["containers"]
        variables = {variable["name"]: variable["value"] for variable in served["env"]}
        grace_period_s = float(variables["FOVEA_GRACE_PERIOD_S"])
    pre_stop_s = served["lifecycle"]["preStop"]["sleep"]["seconds"]
    longest_s = pre_stop_s + grace_period_s + FLUSH_S + FLUSH_S + 2 * HTTP_CLOSE_S + CLOSE_S
    assert longest_s < pod["terminationGracePeriodSeconds"] <= longest_s + 10


def test_the_arithmetic_of_the_comment_is_that_sum() -> None:
    text = (KUBERNETES / "base" / "deployment.yaml").read_text()
    parts = [int(number) for number in re.findall(r"^ +# +(\d+) s  ", text, re.MULTILINE)]
    assert sum(parts) == POD["terminationGracePeriodSeconds"]


def test_a_call_that_was_begun_on_an_old_connection_may_take_as_long_as_any() -> None:
    settings = literals(KUBERNETES / "base")
    assert float(settings["FOVEA_GRPC_MAX_CONNECTION_AGE_GRACE_S"]) > float(settings["FOVEA_REQUEST_TIMEOUT_S"])
    # Nobody waits for a drain longer than for an answer.
    assert float(settings["FOVEA_GRACE_PERIOD_S"]) >= float(settings["FOVEA_REQUEST_TIMEOUT_S"])


# Metrics


def queries() -> dict[str, str]:
    """Every query of the autoscalers, by what it is for."""
    rules = read(ADAPTER)["rules"]["custom"]
    triggers = read(KUBERNETES / "components" / "autoscaling-keda" / "scaled-object.yaml")["spec"]["triggers"]
    return (
        {f"series of {rule['name']['as']}": rule["seriesQuery"] for rule in rules}
        | {f"adapter's {rule['name']['as']}": rule["metricsQuery"] for rule in rules}
        | {f"KEDA's {trigger['name']}": trigger["metadata"]["query"] for trigger in triggers}
    )


@pytest.mark.parametrize("query", queries())
def test_a_query_asks_for_what_is_on_the_page(asked: RunningService, query: str) -> None:
    page = asked.metrics_page()
    asked_for = re.findall(r"((?:fovea|nv)_\w+)\{([^}]*)\}", queries()[query].replace("<<.LabelMatchers>>", ""))
    assert asked_for
    for name, matchers in asked_for:
        given = dict(re.findall(r'(\w+)="([^"]*)"', matchers))
        given.pop("namespace", None)  # Prometheus' own
        labels = "".join(rf'(?=[^}}]*\b{label}="{value}")' for label, value in given.items())
        assert re.search(rf"^{name}\{{{labels}", page, re.MULTILINE), (name, given)


def test_the_autoscaler_asks_for_what_the_adapter_gives() -> None:
    given = {rule["name"]["as"] for rule in read(ADAPTER)["rules"]["custom"]}
    autoscaler = read(KUBERNETES / "components" / "autoscaling-hpa" / "horizontal-pod-autoscaler.yaml")
    asked_for = {metric[metric["type"].lower()]["metric"]["name"] for metric in autoscaler["spec"]["metrics"]}
    assert asked_for == given


def test_both_autoscalers_want_the_same() -> None:
    hpa = read(KUBERNETES / "components" / "autoscaling-hpa" / "horizontal-pod-autoscaler.yaml")["spec"]
    keda = read(KUBERNETES / "components" / "autoscaling-keda" / "scaled-object.yaml")["spec"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (keda["minReplicaCount"], keda["maxReplicaCount"])
    assert hpa["behavior"] == keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    queue, in_flight = hpa["metrics"]
    targets = [queue["object"]["target"]["value"], in_flight["pods"]["target"]["averageValue"]]
    assert targets == ["20m", "8"]
    assert [trigger["metadata"]["threshold"] for trigger in keda["triggers"]] == ["0.02", "8"]


# Security, and what a container may use

STARTED = {
    f"{path.parent.name}: {started['name']}": started
    for path in KUBERNETES.rglob("deployment.yaml")
    for started in containers(pod_of(path))
    if "resources" in started
} | {"kserve": RUNTIME["spec"]["containers"][0]}


@pytest.mark.parametrize("name", STARTED)
def test_every_container_is_restricted(name: str) -> None:
    if "image" in STARTED[name]:
        assert (
            STARTED[name]["securityContext"].items()
            >= {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }.items()
        )


@pytest.mark.parametrize("name", STARTED)
def test_whole_cores_are_requested_and_no_more_used(name: str) -> None:
    """Sessions are counted by the limit, rounded."""
    resources = STARTED[name]["resources"]
    assert resources["limits"] == resources["requests"]
    assert resources["limits"].keys() >= {"cpu", "memory"}
    assert resources["limits"]["cpu"].isdecimal()


def test_the_pod_is_restricted() -> None:
    security = POD["securityContext"]
    assert security["runAsNonRoot"]
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert POD["automountServiceAccountToken"] is False
    assert read(KUBERNETES / "base" / "service-account.yaml")["automountServiceAccountToken"] is False


# The document

DOCUMENT = (ROOT / "docs" / "kubernetes.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in found]


@pytest.mark.parametrize("block", blocks("yaml"))
def test_a_manifest_of_the_document_is_yaml(block: str) -> None:
    for manifest in documents(block):
        assert {"apiVersion", "kind"} <= manifest.keys() or manifest.keys() == {"configMapGenerator"}


def test_the_documents_client_is_the_one_that_lost_nothing() -> None:
    (block,) = blocks("python")
    names: dict[str, Any] = {}
    exec(block, names)
    names["channel"].close()
    assert names["config"] == SERVICE_CONFIG


def test_the_document_has_every_overlay_and_component() -> None:
    listed = re.findall(r"^\| `([\w-]+)` \|", DOCUMENT, re.MULTILINE)
    assert sorted(listed) == sorted(OVERLAYS + COMPONENTS)
