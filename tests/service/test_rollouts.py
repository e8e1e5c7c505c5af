"""Versions tried in a running service: over every way that a request can take, and in replicas of one repository."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import numpy as np
import onnx
import pytest
import tritonclient.grpc.aio

from service.__main__ import main
from service.batching import DynamicBatcher
from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1 import classifier_pb2_grpc
from service.trial import MAX_COPIES
from tests.repositories import graph, picture, write_model
from tests.service.inside import Client, Inside, infer, inside
from tests.service.launch import RunningService, metric_of, running, until

ALL = "dynamic_batching { } version_policy { all { } }"
VALUES = {"pixels": np.full((1, 8, 8, 3), (100, 200, 0), np.uint8)}
SCALES = {"1": 10 / 255, "2": 5 / 255}
"""Each version multiplies its input by a number of its own: the class is the same, 2 is less sure."""
POLL: dict[str, Any] = {"model_control_mode": "poll", "poll_interval_s": 0.05}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    model = write_model(tmp_path / "repository", versions=(1, 2), golden=False, extra=ALL)
    for version, scale in SCALES.items():
        onnx.save(graph(8, scale=scale), model / version / "model.onnx")
    return model


def roll_out(model: Path, *words: str) -> None:
    assert main(["rollout", str(model), *words]) == 0


Ask = Callable[[], Any]
"""Sends a request and says which version answered; what it says must be that version's."""


def over_http(client: httpx.AsyncClient) -> Ask:
    async def ask() -> str:
        headers = {"content-type": "image/png"}
        answer = await client.post("/v1/classify", content=picture("lime", image_format="PNG"), headers=headers)
        return str(answer.raise_for_status().json()["version"])

    return ask


def over_grpc(channel: grpc.aio.Channel) -> Ask:
    stub = classifier_pb2_grpc.ClassifierStub(channel)

    async def ask() -> str:
        answer = await stub.Classify(pb.ClassifyRequest(images=[picture("lime", image_format="PNG")]), timeout=60)
        return str(answer.version)

    return ask


def tensors_over_http(client: Client) -> Ask:
    async def ask() -> str:
        answer = await client.ask(infer("colours", VALUES))
        assert answer.status == 200, answer
        found, logits = answer.binary()
        return checked(found["model_version"], np.frombuffer(logits, np.float32))

    return ask


def tensors_over_grpc(client: tritonclient.grpc.aio.InferenceServerClient) -> Ask:
    pixels = tritonclient.grpc.aio.InferInput("pixels", [1, 8, 8, 3], "UINT8")
    pixels.set_data_from_numpy(VALUES["pixels"])

    async def ask() -> str:
        answer = await client.infer("colours", [pixels], client_timeout=60)
        return checked(answer.get_response().model_version, answer.as_numpy("logits"))

    return ask


def checked(version: str, logits: Any) -> str:
    np.testing.assert_allclose(logits.reshape(-1), np.array([100, 200, 0]) * SCALES[version], rtol=1e-5)
    return version


@pytest.mark.parametrize("transport", ["grpcio", "native"])
async def test_a_canary_gets_its_share_of_all_ways_together(model: Path, transport: str) -> None:
    if transport == "native":
        pytest.importorskip("pygrpc_native")
    roll_out(model, "canary", "2")
    async with (
        inside(model.parent, grpc_transport=transport) as service,
        httpx.AsyncClient(base_url=f"http://{service.running.http_address}", timeout=60) as http,
        grpc.aio.insecure_channel(service.running.grpc_address) as channel,
        tritonclient.grpc.aio.InferenceServerClient(service.running.grpc_address) as triton,
        await service.connect() as connection,
    ):
        ways = [over_http(http), over_grpc(channel), tensors_over_http(connection), tensors_over_grpc(triton)]
        # Three of each, so that every way has its tenth requests.
        answers = Counter([await way() for _ in range(10) for way in ways for _ in range(3)])
        assert answers == {"1": 108, "2": 12}
        assert len(service.known) > (50 if transport == "native" else 25)
        assert await sent(service, "current") == 108
        assert await sent(service, "canary") == 12
        assert await service.metric("fovea_rollout_duration_seconds_count", role="canary", version="2") == 12
        assert await service.metric("fovea_rollout_confidence_count", role="current") == 108
        # Whoever names a version gets that one, and is not counted.
        answer = await connection.ask(infer("colours", VALUES, version="2"))
        assert answer.binary()[0]["model_version"] == "2"
        assert await sent(service, "canary") == 12


async def sent(service: Inside, role: str) -> float:
    return await service.metric("fovea_rollout_requests_total", model="colours", role=role)


async def test_a_shadow_sees_all_ways_and_answers_nobody(model: Path) -> None:
    roll_out(model, "shadow", "2", "--share", "1")
    async with (
        inside(model.parent) as service,
        httpx.AsyncClient(base_url=f"http://{service.running.http_address}", timeout=60) as http,
        grpc.aio.insecure_channel(service.running.grpc_address) as channel,
        tritonclient.grpc.aio.InferenceServerClient(service.running.grpc_address) as triton,
        await service.connect() as connection,
    ):
        ways = [over_http(http), over_grpc(channel), tensors_over_http(connection), tensors_over_grpc(triton)]
        for compared, way in enumerate([*ways, *ways, *ways], 1):
            assert await way() == "1"
            await service.wait_for_metric(compared, "fovea_rollout_compared_images_total", version="2")
        assert await service.metric("fovea_rollout_agreed_images_total", version="2") == 12
        confidences = [
            await service.metric("fovea_rollout_compared_confidence_total", role=role) for role in ("current", "shadow")
        ]
        assert confidences[0] > confidences[1] > 0
        assert service.statistics("colours", "2").success.count == 12


async def test_a_shadow_that_hangs_delays_nobody(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roll_out(model, "shadow", "2", "--share", "1")
    async with inside(model.parent) as service, await service.connect() as connection:
        shadow = service.running.repository.catalogue.find("colours").versions["2"].served
        assert shadow
        go_on = threading.Event()

        def hang(items: object) -> None:
            assert go_on.wait(60)
            raise ValueError("it hung")

        assert isinstance(shadow.batcher, DynamicBatcher)
        for instance in shadow.batcher._instances:
            monkeypatch.setattr(instance, "run", hang)
        ask = tensors_over_http(connection)
        try:
            for _ in range(MAX_COPIES + 3):
                assert await ask() == "1"
            await service.wait_for_metric(3, "fovea_rollout_dropped_total", version="2")
            assert await sent(service, "shadow") == MAX_COPIES
        finally:
            go_on.set()
        await service.wait_for_metric(MAX_COPIES, "fovea_rollout_failed_total", role="shadow")
        assert await service.metric("fovea_rollout_failed_total", role="current") == 0


def answering(service: RunningService) -> str:
    """Which version a replica has as its current one."""
    config = httpx.get(f"{service.http}/v2/models/colours/config", timeout=60).json()
    return str(config.get("parameters", {}).get("rollout.current", {}).get("string_value", ""))


@pytest.mark.system
async def test_replicas_take_every_step_up_under_load(model: Path) -> None:
    """Two replicas of one repository, and a third that comes later; no request of any client's fails."""
    roll_out(model, "pin", "1")
    stop = asyncio.Event()
    answers: Counter[str] = Counter()

    async def client_of(way: Ask) -> None:
        while not stop.is_set():
            answers[await way()] += 1

    async def steps(replicas: list[RunningService]) -> None:
        def all_of(true: Callable[[RunningService], bool]) -> Callable[[], bool]:
            return lambda: all(map(true, replicas))

        try:
            await until(lambda: sum(answers.values()) > 500)
            assert set(answers) == {"1"}
            roll_out(model, "canary", "2")
            await until(all_of(lambda replica: replica.metric("fovea_rollout_share", role="canary") == 0.1))
            pages: dict[str, str] = {}

            def enough(replica: RunningService) -> bool:
                page = pages[replica.http] = replica.metrics_page()
                return metric_of(page, "fovea_rollout_requests_total") >= 2500

            await until(all_of(enough))
            for page in pages.values():
                canary = metric_of(page, "fovea_rollout_requests_total", role="canary", version="2")
                assert canary == metric_of(page, "fovea_rollout_requests_total") // 10
                assert metric_of(page, "fovea_rollout_failed_total") == 0

            for words, current in ((("promote",), "2"), (("rollback",), "1"), (("shadow", "2", "--share", "0.5"), "1")):
                roll_out(model, *words)
                await until(all_of(lambda replica, current=current: answering(replica) == current))  # type: ignore[misc]
                answers.clear()
                await until(lambda: sum(answers.values()) > 500)
                # Those that were on their way when they were cleared.
                assert sum(count for version, count in answers.items() if version != current) <= 16
            await until(all_of(lambda replica: replica.metric("fovea_rollout_compared_images_total") > 0))
        finally:
            stop.set()

    with running(model.parent, **POLL) as one, running(model.parent, **POLL) as two:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for replica in (one, two):
                host, port = replica.http.removeprefix("http://").split(":")
                for _ in range(4):
                    streams = await asyncio.open_connection(host, int(port))
                    connection = await stack.enter_async_context(Client(*streams))
                    group.create_task(client_of(tensors_over_http(connection)))
                    client = tritonclient.grpc.aio.InferenceServerClient(replica.grpc)
                    triton = await stack.enter_async_context(client)
                    group.create_task(client_of(tensors_over_grpc(triton)))
            group.create_task(steps([one, two]))
        for replica in (one, two):
            assert replica.metric("fovea_requests_total") == sum(
                replica.metric("fovea_requests_total", code=code) for code in ("200", "OK")
            )
    roll_out(model, "canary", "2", "--share", "0.25")
    with running(model.parent) as later:
        assert later.metric("fovea_rollout_share", role="canary", version="2") == 0.25
        assert answering(later) == "1"
