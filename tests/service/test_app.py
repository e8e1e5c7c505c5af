"""The service as a process: start, readiness, stop."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1 import classifier_pb2_grpc
from tests.repositories import picture, write_model
from tests.service.conftest import ONE_INSTANCE
from tests.service.launch import (
    EXIT_TIMEOUT_S,
    RunningService,
    command,
    environment,
    lasting_port,
    metric_of,
    run_to_end,
    running,
    until,
)
from tests.service.pictures import encode, scene

RED = picture("red")
JPEG = {"content-type": "image/jpeg"}
LONG = 24
"""Images in a request that takes its time."""
CALLS = (
    *(f"fovea.v1.Classifier/{name}" for name in ("Classify", "ClassifyStream", "Embed")),
    *(f"inference.GRPCInferenceService/Model{name}" for name in ("Infer", "StreamInfer")),
    *(f"inference.GRPCInferenceService/RepositoryModel{name}" for name in ("Load", "Unload")),
)
"""What a service that stops refuses."""


@pytest.fixture
def fast_repository(tmp_path: Path) -> Path:
    write_model(tmp_path)
    return tmp_path


@pytest.fixture
def slow_repository(tmp_path: Path) -> Path:
    write_model(tmp_path, "slow", slow_rounds=240, max_batch_size=2, extra=ONE_INSTANCE)
    return tmp_path


def long_form() -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("images", (f"{number}.jpg", RED, "image/jpeg")) for number in range(LONG)]


def in_flight(service: RunningService, protocol: str) -> float:
    return service.metric("fovea_requests_in_flight", protocol=protocol)


# Start


def test_the_announcement(fast_repository: Path) -> None:
    with running(fast_repository) as service:
        lines = service.announcement.splitlines()
        assert re.fullmatch(rf"Fovea \d+\.\d+\.\d+ serves {fast_repository}", lines[0])
        assert re.fullmatch(
            r"  colours version 1: 3 classes, CPUExecutionProvider, \d+ instances, max batch size 8", lines[1]
        )


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_the_announced_curl_line_works_as_it_stands(tmp_path: Path) -> None:
    repository = tmp_path / "it's a repository"
    write_model(repository)
    with running(repository) as service:
        assert service.process.stdout
        line = ""
        while not line.startswith("  curl "):
            line = service.process.stdout.readline()
            assert line
        answer = subprocess.run(line, shell=True, cwd="/", capture_output=True, check=True, timeout=60)
        assert json.loads(answer.stdout)["predictions"][0]["label"] == "green"


def test_the_announced_curl_line_asks_the_default_model(tmp_path: Path) -> None:
    write_model(tmp_path, "another")
    write_model(tmp_path)
    write_model(tmp_path, "unproven", golden=False)
    for default, shown in ((None, "another"), ("colours", "colours"), ("unproven", "another")):
        with running(tmp_path, **({"default_model": default} if default else {})) as service:
            assert service.process.stdout
            line = ""
            while not line.startswith("  curl "):
                line = service.process.stdout.readline()
                assert line
            assert f"/{shown}/1/golden.jpg" in line
            assert line.endswith(f"/v1/classify?model={shown}'\n")


@pytest.mark.parametrize("setting", ["http_port", "grpc_port", "metrics_port"])
def test_a_taken_port_is_named(service: RunningService, fast_repository: Path, setting: str) -> None:
    addresses = {"http_port": service.http, "grpc_port": service.grpc, "metrics_port": service.metrics}
    found = re.search(r":(\d+)(/metrics)?$", addresses[setting])
    assert found
    port = int(found[1])
    ended = run_to_end("serve", **{"model_repository": fast_repository, setting: port})
    assert ended.returncode == 1
    assert f"error: FOVEA_{setting.upper()}={port}: cannot listen on 127.0.0.1:{port}" in ended.stderr
    assert "choose another port" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    assert httpx.get(f"{service.http}/v2/health/ready").status_code == 200


def test_a_host_that_is_not_there_is_named(fast_repository: Path) -> None:
    ended = run_to_end("serve", model_repository=fast_repository, host="no.such.host.invalid")
    assert ended.returncode == 1
    assert "FOVEA_HOST=no.such.host.invalid" in ended.stderr


def test_an_address_of_ipv6(fast_repository: Path) -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").read_text():
        pytest.skip("needs IPv6 on the loopback interface")
    with running(fast_repository, host="::1") as service:
        assert service.http.startswith("http://[::1]:")
        assert httpx.get(f"{service.http}/v2/health/ready").status_code == 200
        with grpc.insecure_channel(service.grpc) as channel:
            answer = classifier_pb2_grpc.ClassifierStub(channel).Classify(
                pb.ClassifyRequest(images=[picture("red")]), timeout=60
            )
        assert answer.results[0].classification.predictions[0].label == "red"


def test_cuda_that_is_not_there_is_a_failed_start(fast_repository: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    ended = run_to_end("serve", model_repository=fast_repository, execution_provider="cuda")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: FOVEA_EXECUTION_PROVIDER=cuda: this onnxruntime has ")
    assert "install the extra 'gpu'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    ended = run_to_end("serve", model_repository=missing)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"error: FOVEA_MODEL_REPOSITORY={missing}: No such file or directory\n"


def test_a_default_model_that_is_not_there(fast_repository: Path) -> None:
    ended = run_to_end("serve", "--default-model", "cats", model_repository=fast_repository)
    assert ended.returncode == 1
    assert ended.stderr == f"error: FOVEA_DEFAULT_MODEL=cats: {fast_repository} holds colours\n"


def test_a_flag_wins_over_the_environment(fast_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    write_model(other, "shapes")
    with running(fast_repository, "--model-repository", str(other)) as service:
        assert httpx.get(f"{service.http}/v1/models").json()["models"][0]["name"] == "shapes"


async def test_not_ready_while_models_load(tmp_path: Path) -> None:
    """Live, not ready, and stopped by a signal as at any other time: what is not yet loaded is not loaded first."""
    write_model(tmp_path, slow_rounds=600, max_batch_size=4, extra=ONE_INSTANCE)
    write_model(tmp_path, "later", golden=False)
    # A refused port is tried again at once: by default only after a second, when the models may be loaded.
    soon = [(f"grpc.{which}_reconnect_backoff_ms", 50) for which in ("initial", "min", "max")]
    http_port, grpc_port = lasting_port(), lasting_port()
    settings = environment(model_repository=tmp_path, http_port=http_port, grpc_port=grpc_port)
    process = await asyncio.create_subprocess_exec(
        *command("serve"), env=settings, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{http_port}", transport=httpx.AsyncHTTPTransport()) as http,
            grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}", options=soon) as channel,
        ):
            health = health_pb2_grpc.HealthStub(channel)
            check = await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=60)
            async with asyncio.timeout(60):
                while True:
                    try:
                        ready = await http.get("/v2/health/ready")
                        break
                    except httpx.ConnectError:
                        await asyncio.sleep(0.01)
            assert check.status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert (ready.status_code, ready.json()) == (503, {"ready": False, "error": "the service is starting"})
            assert (await http.get("/v2/health/live")).status_code == 200
            refused = await http.post("/v1/classify?model=colours", content=RED, headers=JPEG)
            assert (refused.status_code, refused.json()) == (503, {"error": "model 'colours' is not ready: loading"})
        process.send_signal(signal.SIGTERM)
        stdout, stderr = await asyncio.wait_for(process.communicate(), EXIT_TIMEOUT_S)
        assert process.returncode == 0
        assert (stdout, b"Traceback" in stderr, b"later version 1" in stderr) == (b"", False, False)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# Stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_service_stops_at_once(fast_repository: Path, number: signal.Signals) -> None:
    with running(fast_repository, grace_period_s=1000) as service, httpx.Client(base_url=service.http) as kept_alive:
        assert kept_alive.post("/v1/classify", content=RED, headers=JPEG).status_code == 200
        service.process.send_signal(number)
        assert service.exit_code() == 0


async def test_stopping_is_seen_at_once_and_what_is_in_flight_is_answered(slow_repository: Path) -> None:
    with running(slow_repository) as service:
        async with (
            httpx.AsyncClient(base_url=service.http, timeout=60) as http,
            grpc.aio.insecure_channel(service.grpc) as channel,
        ):
            health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
            stub = classifier_pb2_grpc.ClassifierStub(channel)
            over_http = asyncio.create_task(http.post("/v1/classify", files=long_form()))
            over_grpc = stub.Classify(pb.ClassifyRequest(images=[RED] * LONG), timeout=60)
            await until(lambda: in_flight(service, "http") == in_flight(service, "grpc") == 1)
            assert (await http.get("/v2/health/ready")).status_code == 200

            service.terminate()

            assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            ready = await http.get("/v2/health/ready")
            assert (ready.status_code, ready.json()) == (503, {"ready": False, "error": "the service is stopping"})
            assert ready.headers["connection"] == "close"
            refused = await http.post("/v1/classify", content=RED, headers=JPEG)
            assert (refused.status_code, refused.json()) == (503, {"error": "the service is stopping"})
            assert refused.headers["retry-after"] == "1"
            assert (await http.get("/v2/health/live")).status_code == 200
            for method in CALLS:
                # Of a stream, too: whoever writes to one after it was refused is told of the write by grpcio's client.
                call: Any = channel.unary_unary(f"/{method}")
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await call(b"", timeout=60)
                assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
            assert service.metric("fovea_requests_total", protocol="http", code="503") == 1
            assert service.metric("fovea_requests_rejected_total", protocol="http") == 1
            assert service.metric("fovea_requests_total", protocol="grpc", code="UNAVAILABLE") == len(CALLS)
            assert service.metric("fovea_requests_rejected_total", protocol="grpc") == len(CALLS)
            assert not over_http.done()
            assert not over_grpc.done()

            answers = (await over_http).json()["results"]
            assert [answer["predictions"][0]["label"] for answer in answers] == ["red"] * LONG
            assert len((await over_grpc).results) == LONG
            health.cancel()


async def test_under_load_every_request_that_was_accepted_is_answered(tmp_path: Path) -> None:
    """Keep-alive clients of both protocols go on until they are refused; the service's own count is the witness."""
    write_model(tmp_path, slow_rounds=4)
    outcomes: Counter[str] = Counter()
    enough = asyncio.Event()

    def count(outcome: str) -> bool:
        outcomes[outcome] += 1
        if min(outcomes["http 200"], outcomes["grpc OK"]) >= 100:
            enough.set()
        return outcome in ("http 200", "grpc OK")

    async def over_http(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            going_on = True
            while going_on:
                try:
                    response = await http.post("/v1/classify", content=RED, headers=JPEG)
                except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                    going_on = count("http refused")
                else:
                    going_on = count(f"http {response.status_code}")

    async def over_grpc(address: str) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            stub = classifier_pb2_grpc.ClassifierStub(channel)
            going_on = True
            while going_on:
                try:
                    await stub.Classify(pb.ClassifyRequest(images=[RED]), timeout=60)
                except grpc.aio.AioRpcError as error:
                    going_on = count(f"grpc {error.code().name}")
                else:
                    going_on = count("grpc OK")

    with running(tmp_path, log_level="debug") as service:
        async with asyncio.TaskGroup() as clients:
            for _ in range(8):
                clients.create_task(over_http(service.http))
                clients.create_task(over_grpc(service.grpc))
            await asyncio.wait_for(enough.wait(), 60)
            service.terminate()
        assert service.exit_code() == 0
        logged = Counter(re.findall(r" ((?:http|grpc) request: \S+) in ", service.stderr()))
    assert outcomes.keys() <= {"http 200", "http 503", "http refused", "grpc OK", "grpc UNAVAILABLE"}
    assert logged.pop("http request: 200") == outcomes["http 200"]
    assert logged.pop("grpc request: OK") == outcomes["grpc OK"]
    assert logged.keys() <= {"http request: 503", "grpc request: UNAVAILABLE"}


async def test_streams_that_stay_open_do_not_hold_the_exit(fast_repository: Path) -> None:
    with running(fast_repository, grace_period_s=1000) as service:
        host, port = service.http.removeprefix("http://").split(":")
        async with grpc.aio.insecure_channel(service.grpc) as channel:
            with socket.create_connection((host, int(port))) as half_a_request:
                half_a_request.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost:")
                stream = classifier_pb2_grpc.ClassifierStub(channel).ClassifyStream()
                await stream.write(pb.ClassifyRequest(id="1", images=[RED]))
                assert (await stream.read()).id == "1"
                service.terminate()
                with pytest.raises(grpc.aio.AioRpcError, match="the service is stopping") as raised:
                    await stream.read()
                assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
                assert await asyncio.to_thread(service.exit_code) == 0


async def test_a_health_watch_does_not_hold_the_exit(fast_repository: Path) -> None:
    with running(fast_repository, grace_period_s=1000) as service:
        async with grpc.aio.insecure_channel(service.grpc) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            service.terminate()
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await asyncio.to_thread(service.process.wait, 10) == 0


async def test_a_stream_answers_what_it_has_read_before_it_ends(slow_repository: Path) -> None:
    with running(slow_repository) as service:
        async with grpc.aio.insecure_channel(service.grpc) as channel:
            stream = classifier_pb2_grpc.ClassifierStub(channel).ClassifyStream()
            for number in range(6):
                await stream.write(pb.ClassifyRequest(id=str(number), images=[RED]))

            def read() -> float:
                page = service.metrics_page()
                names = ("fovea_requests_total", "fovea_requests_in_flight")
                return sum(metric_of(page, name, protocol="grpc") for name in names)

            await until(lambda: read() == 6)
            service.terminate()
            answers = [await stream.read() for _ in range(6)]
            assert sorted(answer.id for answer in answers) == list("012345")
            assert all(answer.WhichOneof("outcome") == "response" for answer in answers)
            with pytest.raises(grpc.aio.AioRpcError, match="the service is stopping"):
                await stream.read()


async def test_the_grace_period_bounds_the_wait(tmp_path: Path) -> None:
    write_model(tmp_path, "slow", slow_rounds=60, max_batch_size=2, extra=ONE_INSTANCE)
    with running(tmp_path, may_log="timeout graceful shutdown exceeded", grace_period_s=0.1) as service:
        async with httpx.AsyncClient(base_url=service.http, timeout=600) as http:
            endless = asyncio.create_task(http.post("/v1/classify", files=long_form() * 10))
            await until(lambda: in_flight(service, "http") == 1)
            start = time.monotonic()
            service.terminate()
            assert await asyncio.to_thread(service.exit_code) == 0
            assert time.monotonic() - start < 10
            outcome: Any = (await asyncio.gather(endless, return_exceptions=True))[0]
            assert isinstance(outcome, httpx.HTTPError) or outcome.status_code >= 500


# Logs


def corrupt_exif() -> bytes:
    """An image that Pillow warns of, and reads."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\xff\xff\0\0\0\x20\0\0\0\0"
    return encode(scene(20, 20), "JPEG", exif=exif)


def test_json_logs_are_one_object_a_line(fast_repository: Path) -> None:
    with running(fast_repository, log_format="json", log_level="debug") as service:
        with httpx.Client(base_url=service.http) as http, grpc.insecure_channel(service.grpc) as channel:
            given = {"x-request-id": "over-http"}
            http.post("/v1/classify", content=RED, headers=JPEG | given)
            http.post("/v1/classify", content=b"two\nlines", headers=JPEG | given)
            http.post("/v1/classify?model=a%0Ab", content=RED, headers=JPEG | given)
            assert http.post("/v1/classify", content=corrupt_exif(), headers=JPEG | given).status_code == 200
            with pytest.raises(grpc.RpcError):
                classifier_pb2_grpc.ClassifierStub(channel).Classify(
                    pb.ClassifyRequest(), metadata=[("x-request-id", "over-grpc")], timeout=60
                )
        service.terminate()
        service.exit_code()
        lines = [json.loads(line) for line in service.stderr().splitlines()]
    assert all(line.keys() >= {"time", "level", "logger", "request_id", "message"} for line in lines)
    ids = Counter(line["request_id"] for line in lines)
    assert ids["over-http"] >= 6
    assert ids["over-grpc"] >= 2
    messages = [(line["request_id"], line["level"], line["message"]) for line in lines]
    assert (
        "over-http",
        "INFO",
        "http request failed: 400 not an image: must be one of JPEG, PNG, WEBP, GIF, BMP, TIFF",
    ) in messages
    assert ("over-grpc", "INFO", "grpc request failed: INVALID_ARGUMENT no images in the request") in messages


def test_text_logs_carry_the_request_id_on_one_line(fast_repository: Path) -> None:
    with running(fast_repository) as service:
        url = f"{service.http}/v1/classify?model=a%0A2026-01-01%20forged"
        assert httpx.post(url, content=RED, headers=JPEG | {"x-request-id": "abc-123"}).status_code == 404
        (line,) = [line for line in service.stderr().splitlines() if "[abc-123]" in line]
        assert "http request failed: 404 Request for unknown model: " in line
        assert "forged" in line


def test_a_quiet_log(fast_repository: Path) -> None:
    with running(fast_repository, log_level="error") as service:
        assert httpx.post(f"{service.http}/v1/classify", content=b"", headers=JPEG).status_code == 400
        service.terminate()
        service.exit_code()
        assert service.stderr() == ""
