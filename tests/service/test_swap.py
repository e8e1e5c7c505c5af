"""Models that come, change and go while clients go on asking."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio
import httpx
import numpy as np
import onnx
import pytest
import tritonclient.grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2

from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1 import classifier_pb2_grpc
from tests.repositories import graph, picture, write_model
from tests.service.launch import RunningService, running, until

CLIENTS = 64
SCALES = {"1": 10 / 255, "2": 5 / 255, "3": 2.5 / 255}
"""Each version multiplies its input by a number of its own, so an answer tells which one it is from."""


def publish(model: Path, version: str) -> None:
    """Write beside, then rename."""
    beside = model.parent / f".{version}.partial"
    beside.mkdir()
    onnx.save(graph(8, scale=SCALES[version]), beside / "model.onnx")
    beside.rename(model / version)


class Clients:
    """Half of them send images, half tensors; each asks again as soon as it is answered."""

    def __init__(self, address: str) -> None:
        self.answers: Counter[str] = Counter()
        self._address = address
        self._stop = asyncio.Event()

    async def images(self) -> None:
        async with grpc.aio.insecure_channel(self._address) as channel:
            stub = classifier_pb2_grpc.ClassifierStub(channel)
            while not self._stop.is_set():
                answer = await stub.Classify(pb.ClassifyRequest(images=[picture("red")]), timeout=60)
                red = answer.results[0].classification.predictions[0].probability
                logit = SCALES[answer.version] * 254
                assert red == pytest.approx(np.exp(logit) / (np.exp(logit) + 2), abs=0.01), answer.version
                self.answers[answer.version] += 1

    async def tensors(self) -> None:
        async with tritonclient.grpc.aio.InferenceServerClient(self._address) as client:
            pixels = tritonclient.grpc.aio.InferInput("pixels", [2, 8, 8, 3], "UINT8")
            pixels.set_data_from_numpy(np.full((2, 8, 8, 3), 255, np.uint8))
            while not self._stop.is_set():
                answer = await client.infer("colours", [pixels], client_timeout=60)
                version = answer.get_response().model_version
                np.testing.assert_allclose(answer.as_numpy("logits"), 255 * SCALES[version], rtol=1e-5)
                self.answers[version] += 1

    async def ask_while(self, changes: Callable[[], object]) -> None:
        """Run the changes, in a thread, under load; any client's failure is the test's."""
        clients = [self.images() for _ in range(CLIENTS // 2)] + [self.tensors() for _ in range(CLIENTS // 2)]
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client)
            await until(lambda: sum(self.answers.values()) >= CLIENTS)
            await asyncio.to_thread(changes)
            self._stop.set()


def ready(service: RunningService) -> list[str]:
    model = httpx.get(f"{service.http}/v1/models/colours").json()
    return [version["version"] for version in model["versions"] if version["state"] == "READY"]


async def test_versions_are_swapped_without_one_failed_request(tmp_path: Path) -> None:
    model = write_model(tmp_path, golden=False, extra="dynamic_batching { }")
    with running(tmp_path, model_control_mode="poll", poll_interval_s=0.05) as service:

        def swap() -> None:
            for version in ("2", "3"):
                publish(model, version)
                asyncio.run(until(lambda version=version: ready(service) == [version]))  # type: ignore[misc]
            shutil.rmtree(model / "3")
            asyncio.run(until(lambda: ready(service) == ["2"]))

        clients = Clients(service.grpc)
        await clients.ask_while(swap)
        assert set(clients.answers) == {"1", "2", "3"}


async def test_a_model_is_loaded_again_without_one_failed_request(tmp_path: Path) -> None:
    write_model(tmp_path, golden=False, extra="dynamic_batching { }")
    with running(tmp_path, model_control_mode="explicit") as service:

        def reload() -> None:
            for size in (2, 3, 4):
                config = json.dumps({"max_batch_size": size, "dynamic_batching": {}})
                load(service, "colours", parameters={"config": config}).raise_for_status()
                found = httpx.get(f"{service.http}/v2/models/colours/config").json()
                assert found["max_batch_size"] == size

        clients = Clients(service.grpc)
        await clients.ask_while(reload)
        assert set(clients.answers) == {"1"}


def load(service: RunningService, name: str, **body: object) -> httpx.Response:
    return httpx.post(f"{service.http}/v2/repository/models/{name}/load", json=body, timeout=60)


async def test_a_broken_version_leaves_the_one_before_it_in_service(tmp_path: Path) -> None:
    model = write_model(tmp_path, golden=False)
    with running(tmp_path, model_control_mode="poll", poll_interval_s=0.05) as service:
        (model / "labels.txt").write_text("red\n")
        await until(lambda: "stays as it was: labels.txt: 1 labels for 3 classes" in service.stderr())
        assert ready(service) == ["1"]
        assert label_of_red(service) == "red"
        (model / "labels.txt").write_text("red\nlime\nblue\n")
        await until(lambda: not service.metric("fovea_model_failed"))
        shutil.copytree(model / "1", model / "2")
        (model / "2" / "model.onnx").write_bytes(b"half a graph")
        await until(lambda: "colours version 2: is not served, others are: " in service.stderr())
        assert label_of_red(service) == "red"


def label_of_red(service: RunningService) -> str:
    headers = {"content-type": "image/jpeg"}
    answer = httpx.post(f"{service.http}/v1/classify", content=picture("red"), headers=headers)
    return str(answer.json()["predictions"][0]["label"])


async def test_models_come_and_go_with_their_folders(tmp_path: Path) -> None:
    write_model(tmp_path)
    with running(tmp_path, model_control_mode="poll", poll_interval_s=0.05) as service:

        def status(name: str) -> int:
            return httpx.get(f"{service.http}/v2/models/{name}").status_code

        assert status("late") == 404
        write_model(tmp_path / ".beside", "late")
        (tmp_path / ".beside" / "late").rename(tmp_path / "late")
        await until(lambda: status("late") == 200)
        shutil.rmtree(tmp_path / "late")
        await until(lambda: status("late") == 404)
        assert status("colours") == 200


def test_nothing_is_loaded_by_request_unless_a_setting_allows_it(service: RunningService) -> None:
    for action in ("load", "unload"):
        refused = httpx.post(f"{service.http}/v2/repository/models/colours/{action}", json={})
        assert refused.status_code == 403
        assert "FOVEA_MODEL_CONTROL_MODE must be explicit" in refused.json()["error"]
    with grpc.insecure_channel(service.grpc) as channel:
        stub = tritonclient.grpc.service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as raised:
            stub.RepositoryModelUnload(service_pb2.RepositoryModelUnloadRequest(model_name="colours"), timeout=60)
        assert raised.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert ready(service) == ["1", "3"]


def test_only_the_models_that_were_named_are_loaded_at_start(tmp_path: Path) -> None:
    write_model(tmp_path)
    write_model(tmp_path, "other")
    with running(tmp_path, model_control_mode="explicit", load_models="colours") as service:
        index = httpx.post(f"{service.http}/v2/repository/index").json()
        assert {entry["name"]: entry["state"] for entry in index} == {"colours": "READY", "other": ""}
        assert httpx.get(f"{service.http}/v2/health/ready").status_code == 200
        text = "Request for unknown model: 'other' has no available versions"
        refused = httpx.get(f"{service.http}/v2/models/other")
        assert (refused.status_code, refused.json()) == (404, {"error": text})
        assert load(service, "other").status_code == 200
        assert httpx.get(f"{service.http}/v2/models/other").status_code == 200


def serving(service: RunningService) -> bool:
    with grpc.insecure_channel(service.grpc) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def readiness(service: RunningService) -> int:
    return httpx.get(f"{service.http}/v2/health/ready").status_code


async def test_a_service_becomes_ready_when_what_it_lacked_is_loaded(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    labels = (model / "labels.txt").read_text()
    (model / "labels.txt").write_text("red\n")
    with running(tmp_path, model_control_mode="explicit") as service:
        assert (readiness(service), serving(service)) == (503, False)
        (model / "labels.txt").write_text(labels)
        assert load(service, "colours").status_code == 200
        assert readiness(service) == 200
        await until(lambda: serving(service))
