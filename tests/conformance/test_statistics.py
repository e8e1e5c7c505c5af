"""extension_statistics: what a model has done since it was loaded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from grpc import StatusCode
from tritonclient.grpc import service_pb2

from tests.conformance.wire import Grpc, Http, Json, fields, model_path, refused, rows, simple_inputs, slow_request

pytestmark = pytest.mark.extension("statistics")

PATIENCE_S = 10.0
DURATIONS = {
    "success",
    "fail",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "cache_hit",
    "cache_miss",
}
MEMBERS = {
    "name",
    "version",
    "last_inference",
    "inference_count",
    "execution_count",
    "inference_stats",
    "response_stats",
    "batch_stats",
    "memory_usage",
}


def statistics(http: Http, model: str, version: str = "") -> Json:
    (answer,) = http.get(model_path(model, version) + "/stats").json["model_stats"]
    return answer


def statistics_when(http: Http, model: str, true: Callable[[Json], bool], version: str = "") -> Json:
    """Statistics once something is true of them, or after a while: an answer may come before its numbers do."""
    deadline = time.monotonic() + PATIENCE_S
    while not true(answer := statistics(http, model, version)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


def infer(http: Http, model: str, *, batch: int = 1) -> None:
    request = {"inputs": simple_inputs(batch)} if model == "simple" else {"inputs": [rows("INPUT0", [[1.0, 2.0]])]}
    assert http.infer(model, request).status == 200


def test_every_member_is_there(http: Http) -> None:
    """Model statistics: load generators index them all without asking, zeros included."""
    answer = statistics(http, "simple")
    assert answer.keys() >= MEMBERS
    assert (answer["name"], answer["version"]) == ("simple", "1")
    assert answer["inference_stats"].keys() == DURATIONS
    assert all(
        duration.keys() == {"count", "ns"} and all(type(value) is int for value in duration.values())
        for duration in answer["inference_stats"].values()
    )


def test_every_member_is_there_over_grpc(grpc: Grpc) -> None:
    """ModelStatistics: every duration is set, zeros included."""
    (answer,) = grpc.call("ModelStatistics", service_pb2.ModelStatisticsRequest(name="simple")).model_stats
    assert all(answer.inference_stats.HasField(name) for name in DURATIONS)


def test_an_inference_is_counted(http: Http) -> None:
    """inference_count counts items, execution_count executions, success requests; the durations count requests."""
    before = statistics(http, "simple")
    infer(http, "simple", batch=3)
    count = before["inference_count"] + 3
    after = statistics_when(http, "simple", lambda now: now["inference_count"] >= count)
    assert after["inference_count"] == count
    assert after["execution_count"] - before["execution_count"] == 1
    for duration in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        was, now = before["inference_stats"][duration], after["inference_stats"][duration]
        assert now["count"] - was["count"] == 1, duration
        assert now["ns"] >= was["ns"], duration
    assert after["inference_stats"]["fail"] == before["inference_stats"]["fail"]


def test_durations_are_parts_of_the_whole(http: Http) -> None:
    """success.ns: from arrival to answer, so that the other durations fit in it."""
    infer(http, "simple")
    durations = statistics(http, "simple")["inference_stats"]
    parts = sum(durations[name]["ns"] for name in ("queue", "compute_input", "compute_infer", "compute_output"))
    assert 0 < parts <= durations["success"]["ns"]


def test_last_inference(http: Http) -> None:
    """last_inference: milliseconds since the epoch."""
    before_ms = time.time_ns() // 10**6
    infer(http, "simple")
    after = statistics_when(http, "simple", lambda now: now["last_inference"] >= before_ms)
    assert before_ms <= after["last_inference"] <= time.time_ns() // 10**6


def test_batch_sizes(http: Http) -> None:
    """batch_stats: executions and their durations by the size of their batch."""

    def executions(answer: Json) -> dict[int, int]:
        members = {"batch_size", "compute_input", "compute_infer", "compute_output"}
        assert all(entry.keys() == members for entry in answer["batch_stats"])
        return {entry["batch_size"]: entry["compute_infer"]["count"] for entry in answer["batch_stats"]}

    before = executions(statistics(http, "simple"))
    infer(http, "simple", batch=7)
    after = executions(statistics_when(http, "simple", lambda now: executions(now).get(7, 0) > before.get(7, 0)))
    assert after.pop(7) - before.pop(7, 0) == 1
    assert after == before


def test_requests_share_batches_of_preferred_sizes(http: Http) -> None:
    """preferred_batch_size, seen in batch_stats: four requests at once in batches of two or four."""
    before = statistics(http, "preferred")
    threads = [threading.Thread(target=infer, args=(http, "preferred")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count = before["inference_count"] + 4
    after = statistics_when(http, "preferred", lambda now: now["inference_count"] >= count)
    assert after["inference_count"] == count
    assert after["execution_count"] - before["execution_count"] <= 2
    assert {entry["batch_size"] for entry in after["batch_stats"]} <= {2, 4}


def test_a_rejected_request_counts_as_failed(http: Http, grpc: Grpc) -> None:
    """fail: requests whose time in the queue ran out."""
    before = statistics(http, "impatient")["inference_stats"]
    calls = [grpc.stub.ModelInfer.future(slow_request("impatient")) for _ in range(32)]
    codes = [call.code() for call in calls]
    assert StatusCode.UNAVAILABLE in codes
    expected = {
        "success": before["success"]["count"] + codes.count(StatusCode.OK),
        "fail": before["fail"]["count"] + codes.count(StatusCode.UNAVAILABLE),
    }

    def outcomes(answer: Json) -> dict[str, int]:
        return {name: answer["inference_stats"][name]["count"] for name in expected}

    assert outcomes(statistics_when(http, "impatient", lambda now: outcomes(now) == expected)) == expected


def test_a_failed_inference_counts_as_failed(http: Http) -> None:
    """fail: requests that the model could not answer."""

    def failures(answer: Json) -> int:
        return int(answer["inference_stats"]["fail"]["count"])

    before = failures(statistics(http, "lookup"))
    request = {"inputs": [{"name": "INDEX", "datatype": "INT64", "shape": [1, 1], "data": [7]}]}
    assert http.infer("lookup", request).error(500)
    assert failures(statistics_when(http, "lookup", lambda now: failures(now) > before)) == before + 1


def test_versions_are_counted_apart(http: Http) -> None:
    """Statistics of a model: an entry for each version."""
    entries = http.get("/v2/models/classifier/stats").json["model_stats"]
    assert sorted(entry["version"] for entry in entries) == ["1", "2"]
    before = {entry["version"]: entry["inference_count"] for entry in entries}
    request = {"inputs": [rows("SCORES", [[1, 2, 3, 4]])]}
    assert http.infer("classifier", request, version="1").status == 200
    after = statistics_when(http, "classifier", lambda now: now["inference_count"] > before["1"], "1")
    assert after["inference_count"] == before["1"] + 1
    assert statistics(http, "classifier", "2")["inference_count"] == before["2"]


def test_statistics_of_all_models(http: Http) -> None:
    """Without a model's name: every version of every model."""
    entries = http.get("/v2/models/stats").json["model_stats"]
    names = {(entry["name"], entry["version"]) for entry in entries}
    assert names >= {("simple", "1"), ("classifier", "1"), ("classifier", "2")}
    assert all(entry.keys() >= MEMBERS for entry in entries)


def test_statistics_over_grpc_are_those_of_http(http: Http, grpc: Grpc) -> None:
    """ModelStatistics: the same numbers."""
    before = statistics(http, "simple")["inference_count"]
    infer(http, "simple")
    over_http = statistics_when(http, "simple", lambda now: now["inference_count"] > before)
    (answer,) = grpc.call("ModelStatistics", service_pb2.ModelStatisticsRequest(name="simple", version="1")).model_stats
    assert answer.inference_count == over_http["inference_count"]
    assert answer.execution_count == over_http["execution_count"]
    assert answer.last_inference == over_http["last_inference"]
    as_json = fields(answer)["inference_stats"]
    assert {
        name: {key: int(value) for key, value in duration.items()} for name, duration in as_json.items()
    } == over_http["inference_stats"]


def test_statistics_of_all_models_over_grpc(grpc: Grpc) -> None:
    """ModelStatistics without a name: every version of every model."""
    answer = grpc.call("ModelStatistics", service_pb2.ModelStatisticsRequest())
    names = {(entry.name, entry.version) for entry in answer.model_stats}
    assert names >= {("simple", "1"), ("classifier", "1"), ("classifier", "2")}


@pytest.mark.parametrize(("model", "version"), [("nope", ""), ("simple", "9")])
def test_unknown_model(http: Http, grpc: Grpc, model: str, version: str) -> None:
    """What is unknown has no statistics: 400 in Triton, 404 where unknown models are 404 everywhere."""
    assert f"'{model}'" in http.get(model_path(model, version) + "/stats").error(400, 404)
    with refused(StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND, text=f"'{model}'"):
        grpc.call("ModelStatistics", service_pb2.ModelStatisticsRequest(name=model, version=version))
