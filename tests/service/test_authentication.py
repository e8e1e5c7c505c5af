"""API keys in a running service: no way in without one, over HTTP or gRPC."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import service_pb2

from service.api_keys import Right, line_of, new_key
from service.pb.fovea.v1 import classifier_pb2
from service.rest.authentication import right_for
from service.rpc.authentication import INFER, OPEN
from service.rpc.inference import STREAM_METHOD
from tests.repositories import SIZE, picture, write_model
from tests.service.certificates import replace
from tests.service.launch import RunningService, run_to_end, running, until
from tests.service.test_limits import DATA, END_HEADERS, HEADERS, PREFACE, SETTINGS, call_of, connect, frame

END_STREAM = 1
OPEN_OPERATIONS = {"GET /v2/health/live", "GET /v2/health/ready"}
CONTROL_OPERATIONS = ("/load", "/unload", "register", "/logging", "/setting", "/{action}", "/{repository}/index")
JPEG = {"content-type": "image/jpeg"}
NO_KEYS = ["", "Bearer", "Bearer wrong", "Basic dXNlcjpwYXNz"]
JSON = json.dumps(
    {
        "inputs": [
            {
                "name": "pixels",
                "datatype": "UINT8",
                "shape": [1, SIZE, SIZE, 3],
                "parameters": {"binary_data_size": SIZE * SIZE * 3},
            }
        ],
        "outputs": [{"name": "logits", "parameters": {"binary_data": True}}],
    }
).encode()
TENSOR = np.full((1, SIZE, SIZE, 3), 7, np.uint8)
INFER_METHOD = "/inference.GRPCInferenceService/ModelInfer"
CONTROL_METHOD = "/inference.GRPCInferenceService/RepositoryModelUnload"


@dataclass(frozen=True)
class Guarded:
    """A service with keys, one for each right, and one for both."""

    service: RunningService
    file: Path
    keys: dict[str, str]
    transport: str

    def headers(self, name: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.keys[name]}"}

    def call(self, method: str, message: bytes = b"", authorization: str = "") -> tuple[grpc.StatusCode, str]:
        """One message to any method; what status it ends in, and its words."""
        metadata = (("authorization", authorization),) if authorization else ()
        with grpc.insecure_channel(self.service.grpc) as channel:
            ask: Any = channel.stream_stream(method)
            try:
                for _ in ask(iter([message]), metadata=metadata, timeout=60):
                    pass
            except grpc.RpcError as error:
                return error.code(), error.details() or ""
        return grpc.StatusCode.OK, ""


TRANSPORTS = ["grpcio", "native"]


@pytest.fixture(scope="module", params=TRANSPORTS)
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    if request.param == "native":
        pytest.importorskip("pygrpc_native")
    folder = tmp_path_factory.mktemp("guarded")
    write_model(folder / "models")
    rights = {"infer": (Right.INFER,), "control": (Right.CONTROL,), "both": tuple(Right)}
    keys = {name: new_key() for name in rights}
    file = folder / "keys"
    file.write_text("\n".join(line_of(name, rights[name], key) for name, key in keys.items()))
    with running(
        folder / "models",
        api_keys=file,
        grpc_transport=request.param,
        model_control_mode="explicit",
        log_and_trace_changes=True,
        system_shared_memory=True,
    ) as service:
        yield Guarded(service, file, keys, request.param)
        log = service.stderr()
        assert not [name for name, key in keys.items() if key in log]
        assert "wrong" not in log


def operations(guarded: Guarded) -> Iterator[tuple[str, str]]:
    """Method and path of every one, with something in the place of each parameter."""
    document = httpx.get(f"{guarded.service.http}/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            yield method.upper(), path


# HTTP


def test_no_operation_is_open_but_those_of_health(guarded: Guarded) -> None:
    asked = {}
    with httpx.Client(base_url=guarded.service.http, timeout=60) as client:
        for method, path in operations(guarded):
            for authorization in NO_KEYS:
                headers = {"authorization": authorization} if authorization else {}
                answer = client.request(method, path.format_map(Anything()), headers=headers)
                asked[f"{method} {path}", authorization] = answer.status_code
                if answer.status_code == 401:
                    assert answer.headers["www-authenticate"] == "Bearer"
                    assert answer.headers["x-request-id"]
                    assert "API key" in answer.json()["error"]
    assert len(asked) > 30 * len(NO_KEYS)
    assert {name for (name, _), status in asked.items() if status != 401} == OPEN_OPERATIONS


class Anything(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return {"version": "1", "action": "load", "name": "colours"}.get(name, "x")


def test_operations_that_change_something_need_the_right_to_control(guarded: Guarded) -> None:
    with httpx.Client(base_url=guarded.service.http, timeout=60) as client:
        for method, path in operations(guarded):
            changes = method == "POST" and any(word in path for word in CONTROL_OPERATIONS)
            allowed = "control" if changes else "infer"
            for name in ("infer", "control"):
                if changes and name == allowed:
                    continue
                answer = client.request(method, path.format_map(Anything()), headers=guarded.headers(name))
                refused = answer.status_code == 403 and f"the right {allowed!r}" in answer.text
                assert refused == (name != allowed and f"{method} {path}" not in OPEN_OPERATIONS), (path, answer.text)
        changed = client.post("/v2/logging", json={"log_verbose_level": 0}, headers=guarded.headers("control"))
        assert changed.status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/nowhere"),
        ("GET", "/v2/health/live/"),
        ("GET", "/v2/health/live%0A"),
        ("GET", "//v2/models/colours"),
        ("GET", "/docs/../v1/models"),
        ("GET", "/%76%31/models"),
        ("HEAD", "/v1/models"),
        ("POST", "/v2/health/live"),
        ("POST", "/v2/logging%0A"),
        ("POST", "/docs/assets/"),
        ("OPTIONS", "/v1/models"),
        ("DELETE", "/v1/models"),
    ],
)
def test_no_other_way_in(guarded: Guarded, method: str, path: str) -> None:
    with httpx.Client(base_url=guarded.service.http, timeout=60) as client:
        assert client.send(httpx.Request(method, f"{guarded.service.http}{path}")).status_code == 401


def test_what_is_posted_takes_the_right_to_control_unless_it_is_known_to_infer() -> None:
    assert right_for("POST", "/v2/models/a/infer") is Right.INFER
    for path in ("/v2/logging\n", "/v2/models/a/b/infer", "/v2/models/a/infer\n", "/v2/new"):
        assert right_for("POST", path) is Right.CONTROL


def test_the_page_is_open_and_has_a_place_for_a_key(guarded: Guarded) -> None:
    for path in ("/docs", "/docs/assets/swagger-ui.css"):
        assert httpx.get(f"{guarded.service.http}{path}").status_code == 200
    document = httpx.get(f"{guarded.service.http}/openapi.json").json()
    assert document["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            is_open = f"{method.upper()} {path}" in OPEN_OPERATIONS
            assert (operation.get("security"), "401" in operation["responses"]) == (
                (None, False) if is_open else ([{"key": []}], True)
            )


def test_a_request_that_is_known_needs_a_key_all_the_same(guarded: Guarded) -> None:
    """Answered from the connection: the words of the request are in memory, the key is asked for each time."""
    headers = {"inference-header-content-length": str(len(JSON)), "content-type": "application/octet-stream"}
    body = JSON + TENSOR.tobytes()
    with httpx.Client(base_url=guarded.service.http, timeout=60, headers=headers) as client:
        client.headers.pop("accept-encoding")

        def status(**given: str) -> int:
            return client.post("/v2/models/colours/infer", content=body, headers=given).status_code

        assert [status(**guarded.headers("infer")) for _ in range(3)] == [200] * 3
        assert [status(), status(authorization="Bearer wrong"), status(**guarded.headers("control"))] == [401, 401, 403]
        assert status(**guarded.headers("both")) == 200


def test_classification_with_a_key(guarded: Guarded) -> None:
    answer = httpx.post(
        f"{guarded.service.http}/v1/classify", content=picture("red"), headers=JPEG | guarded.headers("infer")
    )
    assert answer.json()["predictions"][0]["label"] == "red"


def test_why_it_is_not_ready_is_said_on_the_metrics_port_alone(tmp_path: Path) -> None:
    models, keys = tmp_path / "models", tmp_path / "keys"
    (write_model(models, golden=False) / "1" / "model.onnx").write_bytes(b"no graph")
    keys.write_text(line_of("a", (Right.INFER,), new_key()))
    with running(models, api_keys=keys) as service:
        ready = httpx.get(f"{service.http}/v2/health/ready")
        assert (ready.status_code, ready.json()) == (503, {"ready": False, "error": "not ready"})
        assert "colours" in httpx.get(service.metrics.replace("/metrics", "/v2/health/ready")).json()["error"]


# gRPC


def methods() -> dict[str, Any]:
    files = (classifier_pb2, service_pb2, health_pb2, reflection_pb2)
    return {
        f"/{service.full_name}/{method.name}": method
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


def test_no_method_is_open_but_those_of_health(guarded: Guarded) -> None:
    assert methods().keys() >= OPEN | INFER
    for method in [*methods(), "/not.There/AtAll"]:
        if method in OPEN:
            continue
        for authorization in NO_KEYS:
            status, words = guarded.call(method, authorization=authorization)
            assert status is grpc.StatusCode.UNAUTHENTICATED, (method, status, words)
            assert "API key" in words


def test_health_is_open(guarded: Guarded) -> None:
    with grpc.insecure_channel(guarded.service.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=60).status == 1
        watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watch).status == 1
        watch.cancel()
    for name in ("ServerLive", "ServerReady"):
        assert guarded.call(f"/inference.GRPCInferenceService/{name}")[0] is grpc.StatusCode.OK


def test_methods_that_change_something_need_the_right_to_control(guarded: Guarded) -> None:
    for method in methods():
        if method in OPEN:
            continue
        needed = "infer" if method in INFER else "control"
        other = "control" if needed == "infer" else "infer"
        status, words = guarded.call(method, authorization=f"Bearer {guarded.keys[other]}")
        assert status is grpc.StatusCode.PERMISSION_DENIED, (method, status)
        assert f"the right {needed!r}" in words
        if needed == "infer":
            # Without CUDA shared memory that is refused too.
            status, words = guarded.call(method, authorization=f"Bearer {guarded.keys['infer']}")
            assert status is not grpc.StatusCode.UNAUTHENTICATED
            assert "the right" not in words, method
    changing = {method.rpartition("/")[2] for method in methods().keys() - INFER - OPEN}
    assert changing == {
        *("RepositoryModelLoad", "RepositoryModelUnload", "LogSettings", "TraceSetting"),
        *("SystemSharedMemoryRegister", "SystemSharedMemoryUnregister"),
        *("CudaSharedMemoryRegister", "CudaSharedMemoryUnregister"),
    }
    unknown = service_pb2.RepositoryModelUnloadRequest(model_name="nothing").SerializeToString()
    status, _ = guarded.call(CONTROL_METHOD, unknown, f"Bearer {guarded.keys['control']}")
    assert status not in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)


def test_a_call_that_is_known_needs_a_key_all_the_same(guarded: Guarded) -> None:
    message = service_pb2.ModelInferRequest(model_name="colours", raw_input_contents=[TENSOR.tobytes()])
    message.inputs.add(name="pixels", datatype="UINT8", shape=TENSOR.shape)
    content = message.SerializeToString()
    right = f"Bearer {guarded.keys['infer']}"
    ok, denied = grpc.StatusCode.OK, grpc.StatusCode.PERMISSION_DENIED
    assert [guarded.call(INFER_METHOD, content, right)[0] for _ in range(3)] == [ok] * 3
    assert guarded.call(INFER_METHOD, content)[0] is grpc.StatusCode.UNAUTHENTICATED
    assert guarded.call(INFER_METHOD, content, f"Bearer {guarded.keys['control']}")[0] is denied
    assert guarded.call(INFER_METHOD, content, right)[0] is ok


async def test_a_key_with_bytes_that_are_no_utf_8_is_not_logged(guarded: Guarded) -> None:
    """As one has that was pasted with a no-break space in Latin-1."""

    def refused() -> float:
        return guarded.service.metric("fovea_requests_total", protocol="grpc", code="UNAUTHENTICATED")

    before = refused()
    given = f"Bearer {guarded.keys['infer']}".encode() + b"\xa0x"
    with connect(guarded.service.grpc) as connection:
        connection.sendall(PREFACE + frame(SETTINGS))
        connection.sendall(
            frame(HEADERS, call_of(INFER_METHOD.encode(), b"authorization", given), END_HEADERS, stream=1)
        )
        connection.sendall(frame(DATA, bytes(5), END_STREAM, stream=1))
        await until(lambda: refused() > before)
    assert guarded.keys["infer"] not in guarded.service.stderr()
    assert "Traceback" not in guarded.service.stderr()


def test_a_stranger_s_body_is_not_waited_for(guarded: Guarded) -> None:
    head = "POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\ncontent-length: 1000000\r\n\r\n"
    host, port = guarded.service.http.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode())
        assert connection.recv(12) == b"HTTP/1.1 401"
    if guarded.transport == "native":
        return  # It asks nobody before it has a message, of the calls that are its own.
    over = threading.Event()

    def nothing() -> Iterator[bytes]:
        over.wait()
        yield from ()

    with grpc.insecure_channel(guarded.service.grpc) as channel:
        call: Any = channel.stream_stream(INFER_METHOD)
        try:
            with pytest.raises(grpc.RpcError) as raised:
                next(call(nothing(), timeout=60))
        finally:
            over.set()
        error: Any = raised.value
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED


# Both


@pytest.mark.parametrize(
    ("protocol", "code", "other"), [("http", "401", "403"), ("grpc", "UNAUTHENTICATED", "PERMISSION_DENIED")]
)
def test_refusals_are_counted(guarded: Guarded, protocol: str, code: str, other: str) -> None:
    def counted(code: str) -> float:
        return guarded.service.metric("fovea_requests_total", protocol=protocol, code=code)

    def http(key: str) -> None:
        httpx.post(f"{guarded.service.http}/v2/logging", headers={"authorization": f"Bearer {key}"})

    def rpc(key: str) -> None:
        guarded.call(CONTROL_METHOD, authorization=f"Bearer {key}")

    ask: Callable[[str], None] = http if protocol == "http" else rpc
    before = counted(code), counted(other)
    ask("wrong")
    ask(guarded.keys["infer"])
    assert (counted(code), counted(other)) == (before[0] + 1, before[1] + 1)


def test_a_refusal_is_logged_with_its_request_s_id(guarded: Guarded) -> None:
    headers = {"x-request-id": f"refused-{guarded.transport}"}
    httpx.get(f"{guarded.service.http}/v1/models", headers=headers)
    with grpc.insecure_channel(guarded.service.grpc) as channel:
        call: Any = channel.unary_unary(INFER_METHOD)
        with pytest.raises(grpc.RpcError):
            call(b"", metadata=tuple(headers.items()), timeout=60)
    lines = [line for line in guarded.service.stderr().splitlines() if f"[refused-{guarded.transport}]" in line]
    assert [" ".join(line.split()[5:8]) for line in lines] == ["http request refused:", "grpc request refused:"]


def test_the_command_line_has_a_key(guarded: Guarded, tmp_path: Path) -> None:
    if guarded.transport == "native":
        pytest.skip("once is enough: it is the same for it")
    image, file = tmp_path / "red.jpg", tmp_path / "key"
    image.write_bytes(picture("red"))
    file.write_text(guarded.keys["infer"] + "\n")
    classify = ("classify", "--server", guarded.service.grpc, str(image))
    refused = run_to_end(*classify)
    assert refused.returncode == 1
    assert "UNAUTHENTICATED: an API key is needed" in refused.stdout
    for ended in (run_to_end(*classify, "--key-file", str(file)), run_to_end(*classify, api_key=guarded.keys["infer"])):
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "red 100.0 %" in ended.stdout
    compared = run_to_end("compare", "--server", guarded.service.grpc, "--key-file", str(file), str(image))
    assert compared.returncode == 0


async def change_keys(guarded: Guarded, lines: bytes, said: str = "read again") -> None:
    before = guarded.service.stderr().count(said)
    replace(guarded.file, lines)
    await until(lambda: guarded.service.stderr().count(said) > before)


async def test_keys_are_added_and_taken_away_while_the_service_runs(guarded: Guarded) -> None:
    lines = guarded.file.read_bytes()
    key = new_key()

    def let_in(key: str) -> bool:
        headers = {"authorization": f"Bearer {key}"}
        status = httpx.get(f"{guarded.service.http}/v1/models", headers=headers).status_code
        called = guarded.call("/inference.GRPCInferenceService/ServerMetadata", b"", f"Bearer {key}")[0]
        assert (status == 200) == (called is grpc.StatusCode.OK)
        return status == 200

    assert not let_in(key)
    await change_keys(guarded, lines + b"\n" + line_of("new", (Right.INFER,), key).encode())
    assert let_in(key)
    await change_keys(guarded, b"nonsense", said="what was read before is kept")
    assert let_in(key)
    await change_keys(guarded, lines)
    assert not let_in(key)
    assert let_in(guarded.keys["infer"])


@pytest.mark.parametrize("method", ["fovea.v1.Classifier/ClassifyStream", STREAM_METHOD])
async def test_a_key_that_is_taken_away_ends_its_streams(guarded: Guarded, method: str) -> None:
    lines, key = guarded.file.read_bytes(), new_key()
    await change_keys(guarded, lines + b"\n" + line_of("brief", (Right.INFER,), key).encode())
    if method == STREAM_METHOD:
        tensors = service_pb2.ModelInferRequest(model_name="colours", raw_input_contents=[TENSOR.tobytes()])
        tensors.inputs.add(name="pixels", datatype="UINT8", shape=TENSOR.shape)
        message = tensors.SerializeToString()
    else:
        message = classifier_pb2.ClassifyRequest(images=[picture("red")]).SerializeToString()
    async with grpc.aio.insecure_channel(guarded.service.grpc) as channel:
        call: Any = channel.stream_stream(f"/{method}")(metadata=(("authorization", f"Bearer {key}"),), timeout=60)
        for _ in range(2):
            await call.write(message)
            assert await call.read()
        await change_keys(guarded, lines)
        await call.write(message)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert dict(raised.value.trailing_metadata())["x-request-id"]
