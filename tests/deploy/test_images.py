"""The container image of the service on a CPU, built and run."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from service.pb.fovea.v1 import classifier_pb2, classifier_pb2_grpc
from tests.podman.container import podman, running, wait_until_answered
from tests.podman.install import BASE, ROOT

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]
PHOTO = ROOT / "model_repository" / "cifar10" / "1" / "golden.jpg"
MOST_ADDED_BYTES = 320_000_000


def test_hardened_it_answers_on_both_protocols_and_stops_when_it_is_told_to(cpu_image: str) -> None:
    with running(cpu_image) as container:
        wait_until_answered(f"http://{container.address(8002)}/v2/health/ready")
        image = PHOTO.read_bytes()
        over_http = httpx.post(
            f"http://{container.address(8000)}/v1/classify", content=image, headers={"content-type": "image/jpeg"}
        )
        with grpc.insecure_channel(container.address(8001)) as channel:
            over_grpc = classifier_pb2_grpc.ClassifierStub(channel).Classify(
                classifier_pb2.ClassifyRequest(images=[image]), timeout=60
            )
        label = over_grpc.results[0].classification.predictions[0].label
        assert over_http.json()["predictions"][0]["label"] == label
        assert container.healthy()
        assert container.inspect()["State"]["Health"]["Status"] == "healthy"
        assert podman("exec", container.name, "id", "--user").strip() == "65532"

        assert container.stop() == 0
        assert "stopping: requests in flight have up to 30 s" in container.log()


def test_its_health_check_fails_where_a_model_is_broken(cpu_image: str, tmp_path: Path) -> None:
    version = tmp_path / "models" / "broken" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"no graph")
    for folder in (tmp_path.parent, tmp_path, *version.parents[:2]):
        folder.chmod(0o755)
    with running(cpu_image, f"--volume={tmp_path / 'models'}:/models:ro") as container:
        wait_until_answered(f"http://{container.address(8002)}/v2/health/live")
        assert not container.healthy()


def test_it_says_what_is_in_it(cpu_image: str) -> None:
    inspected: dict[str, Any] = json.loads(podman("image", "inspect", cpu_image))[0]
    labels = inspected["Labels"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert labels["org.opencontainers.image.version"] == version
    assert labels["org.opencontainers.image.revision"] == "tested"
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", inspected["User"])

    bill = json.loads(podman("run", "--rm", "--entrypoint=/bin/cat", cpu_image, labels["fovea.sbom"]))
    assert bill["bomFormat"] == "CycloneDX"
    listed = {component["name"].lower().replace("_", "-"): component["version"] for component in bill["components"]}
    pinned = dict(
        re.findall(r"^([\w.-]+)==(\S+) \\", (ROOT / "deploy" / "docker" / "cpu.txt").read_text(), re.MULTILINE)
    )
    assert listed == pinned | {"fovea": version}


def test_it_is_small(cpu_image: str) -> None:
    sizes = [int(podman("image", "inspect", "--format={{.Size}}", image)) for image in (cpu_image, BASE)]
    assert sizes[0] - sizes[1] < MOST_ADDED_BYTES
    programs = podman("run", "--rm", "--entrypoint=/bin/ls", cpu_image, "/app/.venv/bin").split()
    assert "fovea" in programs
    assert "pip" not in programs


def test_it_is_compiled_once_and_for_all(cpu_image: str) -> None:
    """On a read-only root bytecode that does not hold is made again at every start."""
    program = (
        "import pathlib, importlib.util as u\n"
        "def holds(compiled): return compiled.exists() and compiled.read_bytes()[4:8] == b'\\1\\0\\0\\0'\n"
        "sources = list(pathlib.Path('/app/.venv/lib').rglob('*.py'))\n"
        "print(len(sources), [str(s) for s in sources if not holds(pathlib.Path(u.cache_from_source(str(s))))])"
    )
    printed = podman("run", "--rm", "--entrypoint=/app/.venv/bin/python", cpu_image, "-c", program)
    count, unchecked = printed.split(maxsplit=1)
    assert int(count) > 1000
    assert unchecked.strip() == "[]"
