"""Triton as the engine: the same answers as in process, and what happens when it is not there.

Each test is put to Fovea itself in Triton's place, whose protocol it speaks, and in `make test-all` to a real Triton.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import onnx
import pytest
import tritonclient.grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.pb.fovea.v1 import classifier_pb2, classifier_pb2_grpc
from tests.conformance import models as conformance
from tests.repositories import graph, picture, write_model
from tests.service.launch import ROOT, RunningService, lasting_port, run_to_end, running, until
from tests.triton import install
from tests.triton.launch import running as running_triton

pytestmark = pytest.mark.timeout(600)

NOT_NOW = re.compile("Triton at|model 'colours' is not ready")
RETRY_S = 0.05
JPEG = {"content-type": "image/jpeg"}


@dataclass(frozen=True)
class Upstream:
    """What runs the graphs. It can be started, ended and started again, always on the same port."""

    start: Callable[..., AbstractContextManager[int]]
    address: str


@pytest.fixture(params=["fovea", pytest.param("triton", marks=pytest.mark.system)])
def upstream(request: pytest.FixtureRequest) -> Upstream:
    port = lasting_port()

    @contextmanager
    def fovea(repository: Path, *, explicit_control: bool = False) -> Iterator[int]:
        control = "explicit" if explicit_control else "none"
        with running(repository, grpc_port=port, system_shared_memory=True, model_control_mode=control) as service:
            yield service.process.pid

    @contextmanager
    def triton(repository: Path, *, explicit_control: bool = False) -> Iterator[int]:
        with running_triton(repository, grpc_port=port, explicit_control=explicit_control) as server:
            yield server.pid

    if request.param == "triton" and (reason := install.missing()):
        pytest.skip(reason)
    return Upstream(triton if request.param == "triton" else fovea, f"127.0.0.1:{port}")


@pytest.fixture(params=[False, True], ids=["over grpc", "in shared memory"])
def shared_memory(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def behind(upstream: Upstream, repository: Path, **settings: Any) -> AbstractContextManager[RunningService]:
    """A service whose engine is upstream."""
    return running(repository, backend="triton", triton_address=upstream.address, **settings)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_model(tmp_path / "models")
    return tmp_path / "models"


def classify(service: RunningService, **parameters: str) -> httpx.Response:
    red = picture("red")
    return httpx.post(f"{service.http}/v1/classify", params=parameters, content=red, headers=JPEG, timeout=60)


def readiness(service: RunningService) -> httpx.Response:
    return httpx.get(f"{service.http}/v2/health/ready", timeout=60)


async def until_ready(service: RunningService, ready: bool = True) -> None:
    await until(lambda: readiness(service).is_success is ready)


def health(service: RunningService) -> int:
    with grpc.insecure_channel(service.grpc) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
        return int(answer.status)


def is_red(response: httpx.Response) -> bool:
    return response.is_success and response.json()["predictions"][0]["label"] == "red"


async def test_answers_equal_those_in_process(upstream: Upstream, shared_memory: bool, tmp_path: Path) -> None:
    """Of the bundled model, which is an export, of pictures and of tensors of every kind."""
    repository = tmp_path / "models"
    shutil.copytree(ROOT / "model_repository" / "cifar10", repository / "cifar10")
    write_model(repository, "colours")
    conformance.write_simple(repository)
    conformance.write_datatypes(repository)
    conformance.write_classifier(repository)
    conformance.write_identity(repository, "texts", "BYTES", (1,))
    conformance.write_identity(repository, "halves", "FP16", (-1,))
    conformance.write_identity(repository, "two_open", "FP32", (-1, -1))
    write_detector(repository)
    with (
        upstream.start(repository),
        running(repository) as inside,
        behind(upstream, repository, triton_shared_memory=shared_memory) as outside,
    ):
        await until_ready(outside)
        assert index(outside) == index(inside)
        for model, image in (("cifar10", golden(repository)), ("colours", picture("lime"))):
            assert_close(over_http(outside, model, image), over_http(inside, model, image))
            assert_close(over_grpc(outside, model, [image] * 20), over_grpc(inside, model, [image] * 20))
        rows_of = {"simple": 3, "datatypes": 0, "classifier": 8, "texts": 2, "halves": 5, "two_open": 2, "detector": 0}
        for model, rows in rows_of.items():
            there, here = tensors(outside, model, rows), tensors(inside, model, rows)
            assert there.keys() == here.keys()
            for name, array in here.items():
                assert there[name].dtype == array.dtype
                np.testing.assert_array_equal(there[name], array)


def write_detector(repository: Path) -> None:
    """One picture in, which has no axis of rows to be batched along, and as many boxes out as it finds: 5."""
    boxes = onnx.numpy_helper.from_array(np.arange(30, dtype=np.float32).reshape(5, 6), "boxes")
    nodes = [
        onnx.helper.make_node("ReduceMax", ["picture"], ["brightest"], keepdims=0),
        onnx.helper.make_node("Mul", ["boxes", "brightest"], ["found"]),
    ]
    picture = conformance.Value("picture", "FP32", (1, 3, 2, 2))
    found = conformance.Value("found", "FP32", (-1, 6))
    conformance.write_model(repository, "detector", [picture], [found], {1: (nodes, [boxes])}, max_batch_size=0)


def index(service: RunningService) -> object:
    return httpx.post(f"{service.http}/v2/repository/index", json={}, timeout=60).json()


def golden(repository: Path) -> bytes:
    return (repository / "cifar10" / "1" / "golden.jpg").read_bytes()


def over_http(service: RunningService, model: str, image: bytes) -> list[tuple[str, float]]:
    url = f"{service.http}/v1/classify"
    response = httpx.post(url, params={"model": model}, content=image, headers=JPEG, timeout=60)
    assert response.is_success, response.text
    return [(each["label"], each["probability"]) for each in response.json()["predictions"]]


def over_grpc(service: RunningService, model: str, images: list[bytes]) -> list[tuple[str, float]]:
    with grpc.insecure_channel(service.grpc) as channel:
        request = classifier_pb2.ClassifyRequest(images=images, model=model)
        answer = classifier_pb2_grpc.ClassifierStub(channel).Classify(request, timeout=60)
    predictions = [each for result in answer.results for each in result.classification.predictions]
    assert len(predictions) >= 3 * len(images)
    return [(each.label, each.probability) for each in predictions]


def assert_close(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    assert [label for label, _ in found] == [label for label, _ in expected]
    np.testing.assert_allclose([value for _, value in found], [value for _, value in expected], atol=2e-6)


def tensors(service: RunningService, model: str, rows: int) -> dict[str, Any]:
    """The outputs for inputs that are the same each time; open dimensions are 3."""
    rng = np.random.default_rng(0)
    client = tritonclient.grpc.InferenceServerClient(service.grpc)
    metadata = client.get_model_metadata(model)
    inputs = []
    for spec in metadata.inputs:
        shape = [3 if size == -1 else size for size in spec.shape]
        if rows:
            shape[0] = rows
        values: Any = rng.integers(0, 2 if spec.datatype == "BOOL" else 100, shape)
        if spec.datatype == "BYTES":
            values = np.array([f"text {value}".encode() for value in values.ravel()], np.object_).reshape(shape)
        else:
            values = values.astype(tritonclient.utils.triton_to_np_dtype(spec.datatype))
        given = tritonclient.grpc.InferInput(spec.name, shape, spec.datatype)
        given.set_data_from_numpy(values)
        inputs.append(given)
    answer = client.infer(model, inputs, client_timeout=60)
    client.close()
    return {spec.name: answer.as_numpy(spec.name) for spec in metadata.outputs}


async def test_away_at_the_start_and_there_later(upstream: Upstream, repository: Path) -> None:
    with behind(upstream, repository) as service:
        refused = readiness(service)
        assert refused.status_code == 503
        assert f"Triton at {upstream.address} cannot be reached" in refused.json()["error"]
        assert health(service) == health_pb2.HealthCheckResponse.NOT_SERVING
        answer = classify(service)
        assert answer.status_code == 503
        assert answer.json()["error"].endswith(f"Triton at {upstream.address} cannot be reached")
        with upstream.start(repository):
            await until_ready(service)
            assert is_red(classify(service))
            await until(lambda: health(service) == health_pb2.HealthCheckResponse.SERVING)


async def test_gone_and_back(upstream: Upstream, repository: Path, shared_memory: bool) -> None:
    with behind(upstream, repository, triton_shared_memory=shared_memory) as service:
        for _ in range(2):
            with upstream.start(repository):
                await until_ready(service)
                assert is_red(classify(service))
            await until_ready(service, False)
            answer = classify(service)
            assert answer.status_code == 503
            assert "Triton at" in answer.json()["error"]


async def test_a_restart_under_load_costs_503s_only(upstream: Upstream, repository: Path, shared_memory: bool) -> None:
    """Every request is answered: right, or with a 503 that a client may try again."""
    answers: list[httpx.Response] = []
    with behind(upstream, repository, triton_shared_memory=shared_memory) as service:
        done = asyncio.Event()

        async def caller(client: httpx.AsyncClient) -> None:
            while not done.is_set():
                answers.append(await client.post("/v1/classify", content=picture("red"), headers=JPEG))
                if not answers[-1].is_success:
                    await asyncio.sleep(RETRY_S)

        async with httpx.AsyncClient(base_url=service.http, timeout=60) as client, asyncio.TaskGroup() as callers:
            with upstream.start(repository):
                await until_ready(service)
                for _ in range(8):
                    callers.create_task(caller(client))
                await until(lambda: len(answers) > 100)
            await until_ready(service, False)
            before = len(answers)
            with upstream.start(repository):
                await until_ready(service)
                await until(lambda: len(answers) > before + 100 and is_red(answers[-1]))
                done.set()
    assert {answer.status_code for answer in answers} == {200, 503}
    wrong = [answer.text for answer in answers if not is_red(answer) and not NOT_NOW.search(answer.text)]
    assert not wrong


async def test_slow(upstream: Upstream, repository: Path) -> None:
    """A server that hangs: requests end at their deadline, readiness follows, both recover."""
    with upstream.start(repository) as pid, behind(upstream, repository, request_timeout_s=3) as service:
        await until_ready(service)
        assert is_red(classify(service))
        os.kill(pid, signal.SIGSTOP)
        try:
            start = time.monotonic()
            answer = classify(service)
            assert answer.status_code in (503, 504)
            assert time.monotonic() - start < 30
            await until_ready(service, False)
            assert "does not answer within" in readiness(service).json()["error"]
        finally:
            os.kill(pid, signal.SIGCONT)
        await until_ready(service)
        assert is_red(classify(service))


async def test_the_service_stops_while_the_engine_hangs(upstream: Upstream, repository: Path) -> None:
    with upstream.start(repository) as pid, behind(upstream, repository, grace_period_s=1) as service:
        await until_ready(service)
        os.kill(pid, signal.SIGSTOP)
        try:
            start = time.monotonic()
            asking = asyncio.create_task(asyncio.to_thread(classify, service))
            await until(lambda: service.metric("fovea_requests_in_flight") >= 1)
            service.terminate()
            assert service.exit_code() == 0
            assert time.monotonic() - start < 25
            with suppress(httpx.TransportError):
                assert (await asking).status_code == 503
        finally:
            os.kill(pid, signal.SIGCONT)


async def test_another_model_behind_the_name_is_not_served(
    upstream: Upstream, repository: Path, tmp_path: Path
) -> None:
    """What comes back after a restart is held against the golden sample anew."""
    shutil.copytree(repository, tmp_path / "other")
    onnx.save(graph(8, scale=-10 / 255), tmp_path / "other" / "colours" / "1" / "model.onnx")
    shutil.rmtree(tmp_path / "other" / "colours" / "1" / "golden.npz", ignore_errors=True)
    for file in ("golden.npz", "golden.jpg"):
        (tmp_path / "other" / "colours" / "1" / file).unlink(missing_ok=True)
    with behind(upstream, repository) as service:
        with upstream.start(repository):
            await until_ready(service)
        await until_ready(service, False)
        with upstream.start(tmp_path / "other"):
            await until(lambda: "golden sample: logits differ" in readiness(service).text)
            assert classify(service).status_code == 503
        with upstream.start(repository):
            await until_ready(service)
            assert is_red(classify(service))


async def test_a_model_that_is_unloaded_there_is_not_ready_here(upstream: Upstream, repository: Path) -> None:
    write_model(repository, "other")
    with upstream.start(repository, explicit_control=True), behind(upstream, repository) as service:
        await until_ready(service)
        control = tritonclient.grpc.InferenceServerClient(upstream.address)
        control.unload_model("colours")
        await until_ready(service, False)
        assert f"colours version 1: Triton at {upstream.address}: " in readiness(service).json()["error"]
        assert classify(service, model="colours").status_code == 503
        assert is_red(classify(service, model="other"))
        control.load_model("colours")
        await until_ready(service)
        assert is_red(classify(service, model="colours"))
        control.close()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "FOVEA_TRITON_ADDRESS"),
        ({"triton_address": "127.0.0.1:1", "model_control_mode": "poll"}, "FOVEA_MODEL_CONTROL_MODE=poll"),
        ({"triton_address": "127.0.0.1:1", "execution_provider": "cuda"}, "FOVEA_EXECUTION_PROVIDER=cuda"),
    ],
)
def test_settings_that_do_not_fit_are_named(repository: Path, settings: dict[str, str], named: str) -> None:
    ended = run_to_end("serve", model_repository=repository, backend="triton", **settings)
    assert ended.returncode == 1
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_request_can_be_traced(upstream: Upstream, repository: Path, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    with (
        upstream.start(repository),
        behind(upstream, repository, log_and_trace_changes=True, trace_file=file) as service,
    ):
        await until_ready(service)
        settings = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1"}
        url = f"{service.http}/v2/trace/setting"
        assert (await asyncio.to_thread(httpx.post, url, json=settings, timeout=60)).is_success
        assert is_red(classify(service))
    head, *rest = json.loads(file.read_text())
    assert (head["model_name"], head["model_version"]) == ("colours", 1)
    moments = {moment["name"]: moment["ns"] for entry in rest for moment in entry["timestamps"]}
    assert list(moments.values()) == sorted(moments.values())
    # Triton's call is the computation.
    assert moments["COMPUTE_OUTPUT_START"] - moments["COMPUTE_INPUT_END"] > 0
