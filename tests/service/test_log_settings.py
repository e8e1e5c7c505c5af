"""The logging extension: reading and changing settings over both protocols, and what is logged by them."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.conformance.models import write_simple
from tests.repositories import write_model
from tests.service.collector import collecting
from tests.service.launch import RunningService, running
from tests.service.pictures import encode, scene

PATH = "/v2/logging"
AT_START = {
    "log_file": "",
    "log_info": True,
    "log_warning": True,
    "log_error": True,
    "log_verbose_level": 0,
    "log_format": "default",
}
JPEG = {"content-type": "image/jpeg"}
GOOD = encode(scene(20, 20), "JPEG")
BROKEN = b"no image"
BINARY_JSON = (
    b'{"inputs":[{"name":"INPUT0","shape":[1,16],"datatype":"INT32","parameters":{"binary_data_size":64}},'
    b'{"name":"INPUT1","shape":[1,16],"datatype":"INT32","parameters":{"binary_data_size":64}}],'
    b'"parameters":{"binary_data_output":true}}'
)
"""Of a request that is known again."""


def warned_of(tag: int) -> bytes:
    """An image that Pillow reads with a warning; Python gives each one once."""
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01" + bytes([tag]) + b"\0\x03\0\0\xff\xff\0\0\0\x20\0\0\0\0"
    return encode(scene(20, 20), "JPEG", exif=exif)


@pytest.fixture(scope="module")
def logged_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service whose clients may change its log."""
    repository = tmp_path_factory.mktemp("logged")
    write_model(repository)
    with running(repository, log_and_trace_changes=True) as started:
        yield started


@pytest.fixture
def logged(logged_service: RunningService) -> Iterator[httpx.Client]:
    """Its HTTP; the settings are as at its start, before and afterwards."""
    with httpx.Client(base_url=logged_service.http, timeout=60) as client:
        yield client
        at_start = {name: value for name, value in AT_START.items() if name != "log_file"}
        assert client.post(PATH, json=at_start).json() == AT_START


def over_grpc(address: str, **settings: bool | int | str | None) -> dict[str, Any]:
    request: Any = service_pb2.LogSettingsRequest()
    fields = {bool: "bool_param", int: "uint32_param", str: "string_param"}
    for name, value in settings.items():
        if value is None:
            request.settings[name].SetInParent()
        else:
            setattr(request.settings[name], fields[type(value)], value)
    with grpc.insecure_channel(address) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).LogSettings(request, timeout=60)
    return {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in answer.settings.items()}


def refusal(address: str, **settings: bool | int | str | None) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as raised:
        over_grpc(address, **settings)
    error: Any = raised.value
    return error.code().name, error.details()


def lines_of(service: RunningService, client: httpx.Client, image: bytes, identity: str) -> list[str]:
    """What is logged of one request."""
    client.post("/v1/classify", content=image, headers=JPEG | {"x-request-id": identity})
    return [line for line in service.stderr().splitlines() if identity in line]


def test_without_the_setting_they_can_be_read_and_not_changed(service: RunningService, http: httpx.Client) -> None:
    assert "logging" not in http.get("/v2").json()["extensions"]
    assert http.get(PATH).json() == AT_START == over_grpc(service.grpc)
    assert http.post(PATH, json={}).json() == AT_START
    refused = http.post(PATH, json={"log_info": False})
    assert refused.status_code == 403
    assert "FOVEA_LOG_AND_TRACE_CHANGES" in refused.json()["error"]
    code, details = refusal(service.grpc, log_info=False)
    assert code == "PERMISSION_DENIED"
    assert "FOVEA_LOG_AND_TRACE_CHANGES" in details
    assert http.get(PATH).json() == AT_START


def test_with_the_setting_they_are_announced(logged: httpx.Client) -> None:
    assert "logging" in logged.get("/v2").json()["extensions"]


@pytest.mark.parametrize(
    ("level", "on"),
    [
        ("debug", {"log_verbose_level": 1}),
        ("info", {}),
        ("warning", {"log_info": False}),
        ("error", {"log_info": False, "log_warning": False}),
    ],
)
def test_they_begin_as_the_level_says(tmp_path: Path, level: str, on: dict[str, Any]) -> None:
    write_model(tmp_path)
    with running(tmp_path, log_level=level) as service:
        assert httpx.get(f"{service.http}{PATH}").json() == AT_START | on


def test_each_level_is_switched_by_itself(logged: httpx.Client, logged_service: RunningService) -> None:
    def levels(image: bytes, identity: str) -> list[str]:
        return [line.split()[2] for line in lines_of(logged_service, logged, image, identity)]

    assert levels(GOOD, "start-good") == []
    assert levels(BROKEN, "start-broken") == ["INFO"]
    assert levels(warned_of(1), "start-warned") == ["WARNING"]
    logged.post(PATH, json={"log_info": False})
    assert levels(BROKEN, "no-info") == []
    assert levels(warned_of(2), "no-info-warned") == ["WARNING"]
    logged.post(PATH, json={"log_verbose_level": 3})
    assert levels(BROKEN, "verbose-no-info") == ["DEBUG"]
    logged.post(PATH, json={"log_info": True, "log_warning": False})
    assert levels(BROKEN, "everything") == ["INFO", "DEBUG"]
    assert levels(warned_of(3), "no-warning") == ["DEBUG"]
    logged.post(PATH, json={"log_verbose_level": 0, "log_warning": True})
    assert levels(GOOD, "end-good") == []
    assert levels(warned_of(4), "end-warned") == ["WARNING"]


def test_errors_are_switched_too(tmp_path: Path) -> None:
    """An unreadable trace file is an error that a test can have without a bug."""
    write_model(tmp_path / "repository")
    file = tmp_path / "trace.json"
    file.mkdir()
    with running(tmp_path / "repository", log_and_trace_changes=True, trace_file=file) as service:
        with httpx.Client(base_url=service.http, timeout=60) as client:
            everything = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1"}
            client.post("/v2/trace/setting", json=everything)
            client.post(PATH, json={"log_error": False})
            client.post("/v1/classify", content=GOOD, headers=JPEG)
            client.post("/v2/trace/setting", json=everything)
        service.terminate()
        assert service.exit_code() == 0
        assert "ERROR" not in service.stderr()


def test_the_format_is_that_of_the_time(logged: httpx.Client, logged_service: RunningService) -> None:
    (line,) = lines_of(logged_service, logged, BROKEN, "default-time")
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO ", line)
    assert logged.post(PATH, json={"log_format": "ISO8601"}).json() == AT_START | {"log_format": "ISO8601"}
    (line,) = lines_of(logged_service, logged, BROKEN, "iso-time")
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ INFO ", line)


def test_lines_of_json_obey_as_well(tmp_path: Path) -> None:
    write_model(tmp_path)
    with (
        running(tmp_path, log_and_trace_changes=True, log_format="json") as service,
        httpx.Client(base_url=service.http, timeout=60) as client,
    ):
        client.post(PATH, json={"log_format": "ISO8601"})
        (line,) = lines_of(service, client, BROKEN, "json-time")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", json.loads(line)["time"])
        client.post(PATH, json={"log_info": False})
        assert lines_of(service, client, BROKEN, "json-quiet") == []


def test_both_protocols_see_the_same(logged: httpx.Client, logged_service: RunningService) -> None:
    changed = over_grpc(logged_service.grpc, log_warning=False, log_verbose_level=2, log_format="ISO8601")
    expected = AT_START | {"log_warning": False, "log_verbose_level": 2, "log_format": "ISO8601"}
    assert changed == expected == logged.get(PATH).json()


@pytest.mark.parametrize(
    ("settings", "status", "code", "reason"),
    [
        ({"log_warning": "no"}, 400, "INVALID_ARGUMENT", "log_warning must be true or false"),
        ({"log_warning": 0}, 400, "INVALID_ARGUMENT", "log_warning must be true or false"),
        ({"log_warning": None}, 400, "INVALID_ARGUMENT", "log_warning must be true or false"),
        ({"log_verbose_level": True}, 400, "INVALID_ARGUMENT", "from 0 to 4294967295"),
        ({"log_verbose_level": "1"}, 400, "INVALID_ARGUMENT", "from 0 to 4294967295"),
        ({"log_format": "RFC3339"}, 400, "INVALID_ARGUMENT", "default, ISO8601"),
        ({"log_format": 1}, 400, "INVALID_ARGUMENT", "default, ISO8601"),
        ({"log_file": "/tmp/elsewhere"}, 501, "UNIMPLEMENTED", "can not be updated"),
        ({"log_warnings": False}, 400, "INVALID_ARGUMENT", "log_file, log_info, log_warning, log_error"),
    ],
)
def test_what_cannot_be_is_refused_with_all_beside_it(
    logged: httpx.Client, logged_service: RunningService, settings: dict[str, Any], status: int, code: str, reason: str
) -> None:
    refused = logged.post(PATH, json={"log_info": False} | settings)
    assert refused.status_code == status
    assert reason in refused.json()["error"]
    found, details = refusal(logged_service.grpc, **{"log_info": False} | settings)
    assert found == code
    assert reason in details
    assert logged.get(PATH).json() == AT_START


@pytest.mark.parametrize(
    "body",
    [
        "",
        "[]",
        "null",
        "{",
        "[" * 50_000,
        *(f'{{"log_verbose_level": {n}}}' for n in ("-1", "1.0", "4294967296", "1e400")),
    ],
)
def test_a_malformed_body_is_refused(logged: httpx.Client, body: str) -> None:
    refused = logged.post(PATH, content=body)
    assert refused.status_code == 400
    assert refused.json()["error"]
    assert logged.get(PATH).json() == AT_START


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_is_logged_of_a_request_names_its_trace(tmp_path: Path, log_format: str) -> None:
    write_model(tmp_path)
    trace, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with running(tmp_path, log_format=log_format) as service:
        metadata = {"traceparent": f"00-{trace}-{caller}-01", "x-request-id": "mine"}
        for headers in (metadata, {"x-request-id": "alone"}):
            httpx.post(f"{service.http}/v1/classify", content=BROKEN, headers=JPEG | headers, timeout=60)
        with grpc.insecure_channel(service.grpc) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            with pytest.raises(grpc.RpcError):
                stub.ModelInfer(service_pb2.ModelInferRequest(), metadata=tuple(metadata.items()), timeout=60)
        traced, alone, call = [line for line in service.stderr().splitlines() if "request failed" in line]
    if log_format == "json":
        for line in (traced, call):
            found = json.loads(line)
            assert (found["request_id"], found["trace_id"], found["span_id"]) == ("mine", trace, caller)
        assert "trace_id" not in json.loads(alone)
    else:
        for line in (traced, call):
            assert f"[mine trace_id={trace} span_id={caller}] " in line
        assert "[alone] " in alone


@pytest.mark.parametrize("known", [False, True])
async def test_what_is_logged_of_a_request_that_is_recorded_names_its_span(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    write_simple(tmp_path)
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    body = BINARY_JSON + bytes(128)
    lines = ["POST /v2/models/simple/infer HTTP/1.1", "host: fovea", f"content-length: {len(body)}"]
    lines += [f"inference-header-content-length: {len(BINARY_JSON)}", f"traceparent: {trace}", "\r\n"]
    with (
        collecting() as collector,
        running(tmp_path, log_format="json", log_level="debug", otlp_endpoint=collector.endpoint) as service,
    ):
        host, _, port = service.http.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            for _ in range(1 + known):
                connection.sendall("\r\n".join(lines).encode() + body)
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        roots = await collector.roots(trace, 1 + known)
        logged = [json.loads(line) for line in service.stderr().splitlines() if "http request: 200" in line]
    assert [line["span_id"] for line in logged] == [root.span_id.hex() for root in roots]
    assert {line["trace_id"] for line in logged} == {trace.split("-")[1]}
