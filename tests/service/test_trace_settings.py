"""The trace extension: reading and changing settings over both protocols, where it is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.repositories import write_model
from tests.service.launch import RunningService, running

COMMON = "/v2/trace/setting"
OF_MODEL = "/v2/models/colours/trace/setting"
NAMES = ("trace_level", "trace_rate", "trace_count", "log_frequency")
AT_START = {
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "triton",
}


@pytest.fixture(scope="module")
def traced_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service whose clients may trace."""
    folder = tmp_path_factory.mktemp("traced")
    write_model(folder / "repository")
    with running(folder / "repository", log_and_trace_changes=True, trace_file=folder / "trace.json") as started:
        yield started


@pytest.fixture
def traced(traced_service: RunningService) -> Iterator[httpx.Client]:
    """Its HTTP; the settings are as at its start, before and afterwards."""
    with httpx.Client(base_url=traced_service.http, timeout=60) as client:
        yield client
        for path in (OF_MODEL, COMMON):
            assert client.post(path, json=dict.fromkeys(NAMES)).status_code == 200


def over_grpc(address: str, model: str = "", **settings: Sequence[str]) -> dict[str, list[str]]:
    request: Any = service_pb2.TraceSettingRequest(model_name=model)
    for name, words in settings.items():
        request.settings[name].value.extend(words)
    with grpc.insecure_channel(address) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).TraceSetting(request, timeout=60)
    return {name: list(setting.value) for name, setting in answer.settings.items()}


def refusal(address: str, model: str = "", **settings: Sequence[str]) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as raised:
        over_grpc(address, model, **settings)
    error: Any = raised.value
    return error.code().name, error.details()


def test_without_the_setting_they_can_be_read_and_not_changed(service: RunningService, http: httpx.Client) -> None:
    assert "trace" not in http.get("/v2").json()["extensions"]
    assert http.get(COMMON).json() == AT_START == http.get(OF_MODEL).json()
    assert http.post(COMMON, json={}).json() == AT_START
    assert over_grpc(service.grpc)["trace_rate"] == ["1000"]
    for path in (COMMON, OF_MODEL):
        refused = http.post(path, json={"trace_rate": "1"})
        assert refused.status_code == 403
        assert "FOVEA_LOG_AND_TRACE_CHANGES" in refused.json()["error"]
    code, details = refusal(service.grpc, trace_rate=["1"])
    assert code == "PERMISSION_DENIED"
    assert "FOVEA_LOG_AND_TRACE_CHANGES" in details
    assert http.get(COMMON).json() == AT_START


def test_with_the_setting_they_are_announced(traced: httpx.Client) -> None:
    assert "trace" in traced.get("/v2").json()["extensions"]
    assert traced.get(COMMON).json()["trace_file"].endswith("/trace.json")


def test_both_protocols_see_the_same(traced: httpx.Client, traced_service: RunningService) -> None:
    changed = over_grpc(traced_service.grpc, trace_level=["TIMESTAMPS"], trace_rate=["7"])
    assert (changed["trace_level"], changed["trace_rate"]) == (["TIMESTAMPS"], ["7"])
    settings = traced.get(COMMON).json()
    assert {name: word if isinstance(word, list) else [word] for name, word in settings.items()} == changed
    assert traced.post(COMMON, json={"trace_rate": None}).json()["trace_rate"] == "1000"
    assert over_grpc(traced_service.grpc, trace_level=[])["trace_level"] == ["OFF"]


def test_a_model_has_what_it_does_not_set_from_all(traced: httpx.Client, traced_service: RunningService) -> None:
    traced.post(OF_MODEL, json={"trace_count": "3"})
    traced.post(COMMON, json={"trace_rate": "5", "trace_count": "9"})
    settings = traced.get(OF_MODEL).json()
    assert (settings["trace_rate"], settings["trace_count"]) == ("5", "3")
    assert over_grpc(traced_service.grpc, "colours")["trace_count"] == ["3"]
    assert traced.post(OF_MODEL, json={"trace_count": None}).json()["trace_count"] == "9"


@pytest.mark.parametrize(
    ("settings", "status", "code", "reason"),
    [
        ({"trace_level": ["LOUD"]}, 400, "INVALID_ARGUMENT", "OFF and TIMESTAMPS"),
        ({"trace_level": ["OFF", "TIMESTAMPS"]}, 400, "INVALID_ARGUMENT", "OFF and TIMESTAMPS"),
        ({"trace_level": ["TIMESTAMPS", "TENSORS"]}, 501, "UNIMPLEMENTED", "TENSORS"),
        ({"trace_rate": "0"}, 400, "INVALID_ARGUMENT", "from 1 to 4294967295"),
        ({"trace_rate": "4294967296"}, 400, "INVALID_ARGUMENT", "from 1 to 4294967295"),
        ({"trace_rate": "1" * 5000}, 400, "INVALID_ARGUMENT", "from 1 to 4294967295"),
        ({"trace_rate": ""}, 400, "INVALID_ARGUMENT", "from 1 to 4294967295"),
        ({"trace_rate": "٣"}, 400, "INVALID_ARGUMENT", "from 1 to 4294967295"),
        ({"trace_count": "-2"}, 400, "INVALID_ARGUMENT", "from -1 to 2147483647"),
        ({"log_frequency": "10001"}, 400, "INVALID_ARGUMENT", "from 0 to 10000"),
        ({"trace_mode": "opentelemetry"}, 501, "UNIMPLEMENTED", "must be triton"),
        ({"trace_file": "/tmp/elsewhere"}, 501, "UNIMPLEMENTED", "FOVEA_TRACE_FILE"),
        ({"trace_pace": "1"}, 400, "INVALID_ARGUMENT", "trace_level, trace_rate"),
    ],
)
def test_what_cannot_be_is_refused_with_all_beside_it(
    traced: httpx.Client, traced_service: RunningService, settings: dict[str, Any], status: int, code: str, reason: str
) -> None:
    before = traced.get(COMMON).json()
    refused = traced.post(COMMON, json={"trace_count": "4"} | settings)
    assert refused.status_code == status
    assert reason in refused.json()["error"]
    lists = {name: word if isinstance(word, list) else [word] for name, word in settings.items()}
    found, details = refusal(traced_service.grpc, "", **{"trace_count": ["4"]} | lists)
    assert found == code
    assert reason in details
    assert traced.get(COMMON).json() == before


@pytest.mark.parametrize(
    "body",
    ["", "[]", "null", "{", "[" * 50_000, '{"trace_rate": 7}', '{"trace_rate": ["7"]}', '{"trace_level": "OFF"}'],
)
def test_a_malformed_body_is_refused(traced: httpx.Client, body: str) -> None:
    refused = traced.post(COMMON, content=body)
    assert refused.status_code == 400
    assert refused.json()["error"]


def test_a_list_is_no_single_value(traced_service: RunningService) -> None:
    assert refusal(traced_service.grpc, trace_rate=["1", "2"])[0] == "INVALID_ARGUMENT"


def test_an_unknown_model(traced: httpx.Client, traced_service: RunningService) -> None:
    for answer in (traced.get("/v2/models/nope/trace/setting"), traced.post("/v2/models/nope/trace/setting", json={})):
        assert answer.status_code == 404
    assert refusal(traced_service.grpc, "nope")[0] == "NOT_FOUND"


def test_the_mode_that_there_is_may_be_said(traced: httpx.Client) -> None:
    assert traced.post(COMMON, json={"trace_mode": "triton"}).json()["trace_mode"] == "triton"


def test_without_a_file_there_is_no_level(tmp_path: Path) -> None:
    write_model(tmp_path)
    with running(tmp_path, log_and_trace_changes=True) as service:
        refused = httpx.post(f"{service.http}{COMMON}", json={"trace_level": ["TIMESTAMPS"]})
        assert refused.status_code == 400
        assert "FOVEA_TRACE_FILE" in refused.json()["error"]
        code, details = refusal(service.grpc, "colours", trace_level=["TIMESTAMPS"])
        assert code == "INVALID_ARGUMENT"
        assert "FOVEA_TRACE_FILE" in details
        assert httpx.post(f"{service.http}{COMMON}", json={"trace_level": ["OFF"]}).json() == AT_START
