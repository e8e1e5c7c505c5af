"""Traces of requests: which are taken, what is in them, and the files they go to."""

from __future__ import annotations

import itertools
import json
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from service import tracing as module
from service.batching import BatchRecord
from service.errors import InvalidInputError, StartError
from service.inference import Timeline
from service.pb.fovea.v1 import classifier_pb2, classifier_pb2_grpc
from service.telemetry import Telemetry, request_id
from service.tracing import RequestTrace, Tracing
from tests.conformance.models import write_simple
from tests.conformance.wire import simple_inputs, simple_request
from tests.repositories import write_model
from tests.service.launch import run_to_end, running
from tests.service.pictures import encode, scene

STAGES = (
    "REQUEST_START", "QUEUE_START", "COMPUTE_START", "COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START", "COMPUTE_END",
    "REQUEST_END",
)  # fmt: skip
HTTP = ("HTTP_RECV_START", "HTTP_RECV_END", *STAGES, "HTTP_SEND_START", "HTTP_SEND_END")
STREAM = ("GRPC_WAITREAD_START", "GRPC_WAITREAD_END", *STAGES, "GRPC_SEND_START")
GRPC = (*STREAM, "GRPC_SEND_END")
JPEG = encode(scene(20, 20), "JPEG")
ALL = {"trace_level": 1, "trace_rate": 1}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trace.json"


@pytest.fixture
def tracing(file: Path) -> Iterator[Tracing]:
    tracing = Tracing(file)
    yield tracing
    tracing.close()


def answer(tracing: Tracing, *identities: str, model: str = "m") -> None:
    """Requests are answered."""
    for identity in identities:
        tracing.sample(model, "3", identity, [("REQUEST_START", 1.0)])


def traced(file: Path) -> list[str]:
    """The ids of the requests in a file."""
    return [entry["request_id"] for entry in json.loads(file.read_text()) if "request_id" in entry]


def test_one_in_so_many_is_traced(tracing: Tracing, file: Path) -> None:
    tracing.change("", {"trace_level": 1, "trace_rate": 3})
    answer(tracing, *"abcdefgh")
    tracing.close()
    assert traced(file) == ["c", "f"]


def test_nothing_is_traced_while_the_level_is_off(tracing: Tracing, file: Path) -> None:
    tracing.change("", {"trace_rate": 1})
    assert tracing.begin("http", "a") is None
    answer(tracing, "a")
    tracing.change("", {"trace_level": 1})
    assert tracing.begin("http", "b") is not None
    answer(tracing, "b")
    tracing.change("", {"trace_level": 0})
    assert tracing.begin("http", "c") is None
    answer(tracing, "c")
    tracing.close()
    assert traced(file) == ["b"]


def test_the_count_goes_down_to_none(tracing: Tracing, file: Path) -> None:
    tracing.change("", ALL | {"trace_count": 2})
    left = []
    for identity in "abc":
        answer(tracing, identity)
        left.append(tracing.settings()["trace_count"])
    tracing.close()
    assert left == [1, 0, 0]
    assert traced(file) == ["a", "b"]


def test_the_last_of_the_count_is_not_waited_with(tracing: Tracing, file: Path) -> None:
    tracing.change("", ALL | {"trace_count": 2, "log_frequency": 5})
    answer(tracing, "a", "b")
    tracing.close()
    assert traced(file.with_name("trace.json.0")) == ["a", "b"]


def test_a_models_own_settings_come_before_the_common_ones(tracing: Tracing, file: Path) -> None:
    tracing.change("", {"trace_level": 1, "trace_rate": 2})
    tracing.change("cats", {"trace_rate": 1, "trace_count": 1})
    tracing.change("dogs", {"trace_level": 0})
    for model in ("cats", "dogs", "birds"):
        answer(tracing, f"{model} 1", f"{model} 2", model=model)
    assert tracing.settings("birds")["trace_count"] == tracing.settings()["trace_count"] == -1
    assert tracing.settings("cats")["trace_count"] == 0
    tracing.change("cats", {"trace_rate": None, "trace_count": None})
    assert tracing.settings("cats") == tracing.settings()
    answer(tracing, "cats 3", "birds 3", model="cats")
    tracing.close()
    assert traced(file) == ["cats 1", "birds 2", "birds 3"]


def test_a_level_of_one_model_is_enough(tracing: Tracing, file: Path) -> None:
    tracing.change("cats", ALL)
    assert tracing.begin("http", "a") is not None
    answer(tracing, "a", model="cats")
    answer(tracing, "b", model="dogs")
    tracing.change("cats", {"trace_level": None, "trace_rate": None})
    assert tracing.begin("http", "c") is None
    tracing.close()
    assert traced(file) == ["a"]


def test_a_file_for_every_so_many_traces(tracing: Tracing, file: Path) -> None:
    tracing.change("", ALL | {"log_frequency": 2})
    answer(tracing, *"abcde")
    tracing.close()
    assert [traced(file.with_name(f"trace.json.{number}")) for number in range(3)] == [["a", "b"], ["c", "d"], ["e"]]
    assert not file.exists()


def test_the_one_file_is_a_list_whenever_it_is_written(tracing: Tracing, file: Path) -> None:
    file.write_text("what another service left, much longer than what follows" * 100)
    seen = []
    for identity in "abc":
        tracing.change("", ALL)
        answer(tracing, identity)
        tracing.change("", {})
        tracing._writes[-1].result()
        seen.append(traced(file))
    assert seen == [["a"], ["a", "b"], ["a", "b", "c"]]
    file.rename(file.with_name("collected"))
    answer(tracing, "d")
    tracing.close()
    assert traced(file) == ["d"]


def test_traces_are_written_before_there_are_too_many(
    tracing: Tracing, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    tracing.change("", ALL)
    answer(tracing, *"abcd")
    (written,) = tracing._writes
    written.result()
    assert traced(file) == ["a", "b", "c"]


def test_a_file_system_that_hangs_costs_traces_and_nothing_else(
    tracing: Tracing, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = file.with_name("trace.json.0")
    os.mkfifo(pipe)
    tracing.change("", ALL | {"log_frequency": 1})
    answer(tracing, *"abcdef")
    assert "1 traces are lost" in caplog.text
    reader = threading.Thread(target=pipe.read_text)
    reader.start()
    tracing.close()
    reader.join()
    assert [traced(file.with_name(f"trace.json.{number}")) for number in (1, 2, 3)] == [["b"], ["c"], ["d"]]
    assert not file.with_name("trace.json.4").exists()


def test_a_file_that_cannot_be_written_is_logged(
    tracing: Tracing, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.mkdir()
    tracing.change("", ALL)
    answer(tracing, "a")
    tracing.close()
    assert f"FOVEA_TRACE_FILE={file}: traces are lost" in caplog.text
    assert all(record.levelno == logging.ERROR for record in caplog.records)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="FOVEA_TRACE_FILE="):
        Tracing(tmp_path / "nowhere" / "trace.json")
    ended = run_to_end("serve", trace_file=tmp_path / "nowhere" / "trace.json")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: FOVEA_TRACE_FILE=")


def test_the_form_of_a_trace(tracing: Tracing, file: Path) -> None:
    tracing.change("", ALL)
    trace = RequestTrace(tracing, "http", "of the request")
    trace.read()
    trace.add("m", "3", Timeline(1.0, 2.0, 0.5, BatchRecord(2, 0.25, 0.125, 0.0625), 4.0))
    trace.add("m", "3", Timeline(1.0, 2.0, 0.5, BatchRecord(2, 0.25, 0.125, 0.0625), 4.0), 'its "own"\n')
    trace.answered()
    trace.sent()
    tracing.close()
    entries = json.loads(file.read_text())
    heads = [entry for entry in entries if "timestamps" not in entry]
    assert heads == [
        {"id": 1, "model_name": "m", "model_version": 3, "request_id": "of the request"},
        {"id": 2, "model_name": "m", "model_version": 3, "request_id": 'its "own"\n'},
    ]
    moments = {
        entry["timestamps"][0]["name"]: entry["timestamps"][0]["ns"]
        for entry in entries
        if entry["id"] == 1 and "timestamps" in entry
    }
    assert [moments[name] for name in STAGES] == [
        1_000_000_000, 2_000_000_000, 2_500_000_000, 2_750_000_000, 2_875_000_000, 2_937_500_000, 4_000_000_000
    ]  # fmt: skip
    assert moments.keys() == set(HTTP)


def test_a_request_that_fails_is_not_traced(tracing: Tracing, file: Path) -> None:
    telemetry = Telemetry(tracing)
    tracing.change("", ALL)
    token = request_id.set("abc")
    with suppress(InvalidInputError), telemetry.request("http") as record:
        assert record.trace
        record.trace.add("m", "1", Timeline(1.0, 2.0, 0.5, BatchRecord(1, 0.1, 0.1), 4.0))
        raise InvalidInputError("after its inference")
    request_id.reset(token)
    tracing.close()
    assert not file.exists()


# The real service


def moments_by_trace(file: Path) -> list[tuple[dict[str, Any], dict[str, int]]]:
    """A file's traces: what each is of, and its moments in the order of the file."""
    traces: list[tuple[dict[str, Any], dict[str, int]]] = []
    for number, group in itertools.groupby(json.loads(file.read_text()), key=lambda entry: entry["id"]):
        head, *rest = group
        assert number == len(traces) + 1
        traces.append((head, {moment["name"]: moment["ns"] for entry in rest for moment in entry["timestamps"]}))
    return traces


def test_requests_of_every_kind_are_traced(tmp_path: Path, file: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    write_simple(repository)
    write_model(repository, versions=(3,))
    with (
        running(repository, log_and_trace_changes=True, trace_file=file) as service,
        httpx.Client(base_url=service.http, timeout=60) as http,
        grpc.insecure_channel(service.grpc) as channel,
    ):
        everything = {"trace_level": ["TIMESTAMPS"], "trace_rate": "1"}
        assert http.post("/v2/trace/setting", json=everything).status_code == 200
        tensors, classifier = (
            service_pb2_grpc.GRPCInferenceServiceStub(channel),
            classifier_pb2_grpc.ClassifierStub(channel),
        )
        infer = "/v2/models/simple/infer"
        assert http.post(infer, json={"id": "i1", "inputs": simple_inputs()}).status_code == 200
        assert http.post(infer, json={"id": "refused", "inputs": []}).status_code == 400
        classify = "/v1/classify?model=colours"
        named = {"x-request-id": "c1"}
        assert http.post(classify, content=JPEG, headers=named | {"content-type": "image/jpeg"}).status_code == 200
        files = [("images", ("a", JPEG)), ("images", ("b", b"no image")), ("images", ("c", JPEG))]
        assert http.post(classify, files=files, headers={"x-request-id": "c2"}).status_code == 200
        tensors.ModelInfer(simple_request(id="i2"), timeout=60)
        with pytest.raises(grpc.RpcError):
            tensors.ModelInfer(service_pb2.ModelInferRequest(model_name="simple", id="refused"), timeout=60)
        list(tensors.ModelStreamInfer(iter([simple_request(id="i3"), simple_request(id="i4")]), timeout=60))
        request = classifier_pb2.ClassifyRequest(model="colours", images=[JPEG, JPEG])
        classifier.Classify(request, timeout=60, metadata=[("x-request-id", "c3")])
        list(classifier.ClassifyStream(iter([request]), timeout=60, metadata=[("x-request-id", "c4")]))
    found = sorted(moments_by_trace(file), key=lambda trace: str(trace[0]["request_id"]))
    expected = {"c1": 1, "c2": 2, "c3": 2, "c4": 2, "i1": 1, "i2": 1, "i3": 1, "i4": 1}
    assert [head["request_id"] for head, _ in found] == [name for name, count in expected.items() for _ in range(count)]
    kinds = {"c1": HTTP, "c2": HTTP, "c3": GRPC, "c4": STREAM, "i1": HTTP, "i2": GRPC, "i3": STREAM, "i4": STREAM}
    for head, moments in found:
        of_images = head["request_id"].startswith("c")
        assert (head["model_name"], head["model_version"]) == (("colours", 3) if of_images else ("simple", 1))
        assert tuple(moments) == kinds[head["request_id"]]
        assert list(moments.values()) == sorted(moments.values())


def summary(file: Path) -> dict[tuple[str, int, str], dict[str, int]]:
    """The time in each span, in ns, by model, version and protocol, as the summary tool of Triton adds it up.

    It takes entries of one id together, passes over those without a protocol's first moment and over those whose
    request did not end, and gives up where a span ends before it begins.
    """
    heads: dict[int, Any] = {}
    moments: dict[int, dict[str, int]] = {}
    for entry in json.loads(file.read_text()):
        if "model_name" in entry:
            heads[entry["id"]] = entry
        for moment in entry.get("timestamps", ()):
            moments.setdefault(entry["id"], {})[moment["name"]] = moment["ns"]
    spans = {
        "request": ("REQUEST_START", "REQUEST_END"),
        "queue": ("QUEUE_START", "COMPUTE_START"),
        "compute": ("COMPUTE_START", "COMPUTE_END"),
        "input": ("COMPUTE_START", "COMPUTE_INPUT_END"),
        "infer": ("COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START"),
        "output": ("COMPUTE_OUTPUT_START", "COMPUTE_END"),
    }
    sums: dict[tuple[str, int, str], dict[str, int]] = {}
    for protocol, receive in (("HTTP", "RECV"), ("GRPC", "WAITREAD")):
        of_protocol = {
            "whole": (f"{protocol}_{receive}_START", f"{protocol}_SEND_END"),
            "receive": (f"{protocol}_{receive}_START", f"{protocol}_{receive}_END"),
            "send": (f"{protocol}_SEND_START", f"{protocol}_SEND_END"),
        }
        for number, at in moments.items():
            if f"{protocol}_{receive}_START" not in at or not {"REQUEST_START", "REQUEST_END"} <= at.keys():
                continue
            key = (heads[number]["model_name"], heads[number]["model_version"], protocol)
            into = sums.setdefault(key, dict.fromkeys((*of_protocol, *spans), 0))
            for name, (start, end) in (of_protocol | spans).items():
                assert at[end] >= at[start], (name, at)
                into[name] += at[end] - at[start]
    return sums


def test_tritons_summary_tool_can_read_the_file(tmp_path: Path, file: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    write_simple(repository)
    with (
        running(repository, log_and_trace_changes=True, trace_file=file) as service,
        httpx.Client(base_url=service.http, timeout=60) as http,
        grpc.insecure_channel(service.grpc) as channel,
    ):
        http.post("/v2/models/simple/trace/setting", json={"trace_level": ["TIMESTAMPS"], "trace_rate": "1"})
        for _ in range(3):
            http.post("/v2/models/simple/infer", json={"inputs": simple_inputs()})
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(simple_request(), timeout=60)
    sums = summary(file)
    assert sums.keys() == {("simple", 1, "HTTP"), ("simple", 1, "GRPC")}
    for spans in sums.values():
        assert spans["whole"] >= spans["receive"] + spans["request"] + spans["send"]
        assert spans["request"] >= spans["queue"] + spans["compute"]
        assert spans["compute"] == spans["input"] + spans["infer"] + spans["output"]
        assert spans["infer"] > 0
