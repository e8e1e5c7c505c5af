"""gRPC connections that grow too old: clients are told to open another, and no call is lost by it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1.classifier_pb2_grpc import ClassifierStub
from tests.repositories import picture, write_model
from tests.service.conftest import ONE_INSTANCE
from tests.service.launch import run_to_end, running

RED = picture("red")
IDLE, READY = grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.READY
ENOUGH = 5
"""Connections, one after the other."""


async def test_connections_are_closed_again_and_again_and_no_call_fails(tmp_path: Path) -> None:
    write_model(tmp_path)
    with running(tmp_path, grpc_transport="grpcio", grpc_max_connection_age_s=0.2) as service:
        async with grpc.aio.insecure_channel(service.grpc) as channel:
            stub = ClassifierStub(channel)
            enough = asyncio.Event()

            async def see_connections_close() -> None:
                for _ in range(ENOUGH):
                    while (state := channel.get_state(try_to_connect=True)) is not READY:
                        await channel.wait_for_state_change(state)
                    await channel.wait_for_state_change(READY)
                enough.set()

            async def call() -> int:
                answered = 0
                while not enough.is_set():
                    response = await stub.Classify(pb.ClassifyRequest(images=[RED]), timeout=60)
                    assert response.results[0].classification.predictions[0].label == "red"
                    answered += 1
                return answered

            async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
                tasks.create_task(see_connections_close())
                callers = [tasks.create_task(call()) for _ in range(8)]
        answered = sum(caller.result() for caller in callers)
        assert answered > ENOUGH
        assert service.metric("fovea_requests_total", protocol="grpc", code="OK") == answered
        assert service.metric("fovea_requests_total", protocol="grpc") == answered


async def test_a_call_outlives_its_connections_age(tmp_path: Path) -> None:
    write_model(tmp_path, "slow", slow_rounds=300, max_batch_size=2, extra=ONE_INSTANCE)
    with running(tmp_path, grpc_transport="grpcio", grpc_max_connection_age_s=0.05) as service:
        async with grpc.aio.insecure_channel(service.grpc) as channel:
            call = ClassifierStub(channel).Classify(pb.ClassifyRequest(images=[RED] * 20), timeout=60)
            await channel.wait_for_state_change(IDLE)
            # It is idle again once the connection is closed for new calls.
            while (state := channel.get_state()) is not IDLE:
                await channel.wait_for_state_change(state)
            assert not call.done()
            assert len((await call).results) == 20


async def test_after_the_grace_a_call_is_ended(tmp_path: Path) -> None:
    write_model(tmp_path)
    with running(
        tmp_path, grpc_transport="grpcio", grpc_max_connection_age_s=1, grpc_max_connection_age_grace_s=1
    ) as service:
        async with grpc.aio.insecure_channel(service.grpc) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await watch.read()
            assert raised.value.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("name", ["grpc_max_connection_age_s", "grpc_max_connection_age_grace_s"])
def test_the_native_transport_has_no_age(tmp_path: Path, name: str) -> None:
    write_model(tmp_path / "models")
    ended = run_to_end("serve", model_repository=tmp_path / "models", grpc_transport="native", **{name: 60})
    assert ended.returncode == 1
    assert ended.stderr == (
        "error: FOVEA_GRPC_TRANSPORT=native has no age of connections: "
        f"leave FOVEA_{name.upper()} unset, or take the transport grpcio\n"
    )
