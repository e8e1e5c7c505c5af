"""The Kubernetes manifests for CPU nodes, run by podman: one pod of the Deployment, as it is but for its probes.

podman asks HTTP probes with curl, which the image does not have: for this run they are the image's own Python.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
import yaml

from service.pb.fovea.v1 import classifier_pb2, classifier_pb2_grpc
from tests.podman.container import Container, podman, wait_until_answered
from tests.podman.install import ROOT
from tests.triton.launch import free_ports

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]
OVERLAY = ROOT / "deploy" / "kubernetes" / "overlays" / "cpu"
PHOTO = ROOT / "model_repository" / "cifar10" / "1" / "golden.jpg"
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


@pytest.fixture(scope="module")
def ports(cpu_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Where the pod's ports are on this machine, by name."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed")
    command = ["kubectl", "kustomize", str(OVERLAY)]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    manifests = [
        manifest for manifest in yaml.safe_load_all(rendered) if manifest["kind"] in ("ConfigMap", "Deployment")
    ]
    (deployment,) = (manifest for manifest in manifests if manifest["kind"] == "Deployment")
    published = _adapt(deployment, cpu_image)

    file = tmp_path_factory.mktemp("kube") / "play.yaml"
    file.write_text(yaml.safe_dump_all(sorted(manifests, key=lambda manifest: manifest["kind"])))
    podman("kube", "play", "--network=podman", str(file))
    try:
        yield published
    finally:
        podman("kube", "down", str(file))


def test_a_pod_of_the_deployment_answers_on_both_protocols(ports: dict[str, int]) -> None:
    wait_until_answered(f"http://127.0.0.1:{ports['metrics']}/v2/health/ready")
    image = PHOTO.read_bytes()
    over_http = httpx.post(
        f"http://127.0.0.1:{ports['http']}/v1/classify", content=image, headers={"content-type": "image/jpeg"}
    )
    with grpc.insecure_channel(f"127.0.0.1:{ports['grpc']}") as channel:
        over_grpc = classifier_pb2_grpc.ClassifierStub(channel).Classify(
            classifier_pb2.ClassifyRequest(images=[image]), timeout=60
        )
    assert over_http.json()["predictions"][0]["label"] == over_grpc.results[0].classification.predictions[0].label
    assert Container("fovea-pod-0-fovea").healthy()


def _adapt(deployment: dict[str, Any], image: str) -> dict[str, int]:
    """One replica of the image that was built, on free ports, with probes that need no curl; the ports by name."""
    deployment["spec"]["replicas"] = 1
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container |= {"image": image, "imagePullPolicy": "Never"}
    numbers = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe in PROBES:
        asked = container[probe].pop("httpGet")
        program = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{numbers[asked['port']]}{asked['path']}')"
        # podman makes a line for a shell of it.
        container[probe]["exec"] = {"command": [shlex.join(["/app/.venv/bin/python", "-ISc", program])]}
    for port, free in zip(container["ports"], free_ports(len(container["ports"])), strict=True):
        port |= {"hostIP": "127.0.0.1", "hostPort": free}
    return {port["name"]: port["hostPort"] for port in container["ports"]}
