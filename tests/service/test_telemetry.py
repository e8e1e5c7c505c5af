from __future__ import annotations

import asyncio
import logging
import time

import pytest
from prometheus_client import generate_latest

from service.batching import BatchRecord
from service.classifier import Answer, Prediction, Result, Stages
from service.errors import InvalidInputError, QueueFullError, UnavailableError
from service.inference import Timeline
from service.telemetry import MAX_REQUEST_ID_LENGTH, Telemetry, accept_request_id
from service.tracing import Tracing


@pytest.mark.parametrize("fit", ["a", "3f2a-77", "x" * MAX_REQUEST_ID_LENGTH, "00-4bf92f3577b34da6-01"])
def test_a_fit_request_id_is_kept(fit: str) -> None:
    assert accept_request_id(fit) == fit


@pytest.mark.parametrize(
    "unfit", [None, "", "x" * (MAX_REQUEST_ID_LENGTH + 1), "a\nb", "a\x00", "é", "a\tb", "a\r\nx: y"]
)
def test_an_unfit_request_id_is_replaced(unfit: str | None) -> None:
    first, second = accept_request_id(unfit), accept_request_id(unfit)
    assert first != unfit
    assert first != second
    assert len(first) == 32
    assert first.isalnum()


def value(telemetry: Telemetry, name: str, **labels: str) -> float:
    return telemetry.registry.get_sample_value(name, labels) or 0.0


def test_a_request_is_counted_by_its_code() -> None:
    telemetry = Telemetry(Tracing(None))
    with telemetry.request("http") as record:
        assert value(telemetry, "fovea_requests_in_flight", protocol="http") == 1
        record.model = "cats"
    assert value(telemetry, "fovea_requests_in_flight", protocol="http") == 0
    assert value(telemetry, "fovea_requests_total", protocol="http", model="cats", code="200") == 1
    assert value(telemetry, "fovea_request_duration_seconds_count", protocol="http", model="cats") == 1


def test_a_request_whose_client_has_gone_has_no_duration() -> None:
    telemetry = Telemetry(Tracing(None))
    with telemetry.request("http") as record:
        record.code = "499"
    assert value(telemetry, "fovea_requests_total", protocol="http", model="", code="499") == 1
    assert value(telemetry, "fovea_request_duration_seconds_count", protocol="http", model="") == 0


@pytest.mark.parametrize(
    ("error", "http", "grpc", "rejected"),
    [
        (InvalidInputError("x"), "400", "INVALID_ARGUMENT", 0),
        (UnavailableError("x"), "503", "UNAVAILABLE", 1),
        (ValueError("a bug"), "500", "INTERNAL", 0),
        (asyncio.CancelledError(), "499", "CANCELLED", 0),
    ],
)
def test_a_failed_request_is_counted_by_its_code(error: BaseException, http: str, grpc: str, rejected: int) -> None:
    telemetry = Telemetry(Tracing(None))
    for protocol, code in (("http", http), ("grpc", grpc)):
        with pytest.raises(type(error)), telemetry.request(protocol):
            raise error
        assert value(telemetry, "fovea_requests_total", protocol=protocol, model="", code=code) == 1
        assert value(telemetry, "fovea_requests_rejected_total", protocol=protocol) == rejected
        assert value(telemetry, "fovea_requests_in_flight", protocol=protocol) == 0


def test_every_stage_of_every_image_is_observed() -> None:
    telemetry = Telemetry(Tracing(None))
    stages = Stages(0.001, 0.002, 0.003, 0.004, 0.005, 0.015)
    timeline = Timeline(0.0, 0.001, 0.002, BatchRecord(2, 0.003, 0.004), 0.015)
    result = Result([Prediction("cat", 0, 1.0)], stages, 2, timeline)
    with telemetry.request("http") as record:
        telemetry.observe(Answer("m", "1", [result, InvalidInputError("no image"), result]), record)
    for stage, seconds in (
        ("decode", 0.001), ("queue", 0.002), ("batch_assembly", 0.003),
        ("inference", 0.004), ("postprocessing", 0.005), ("total", 0.015),
    ):  # fmt: skip
        labels = {"model": "m", "version": "1", "stage": stage}
        assert value(telemetry, "fovea_stage_duration_seconds_count", **labels) == 2
        assert value(telemetry, "fovea_stage_duration_seconds_sum", **labels) == pytest.approx(2 * seconds)


def test_batches() -> None:
    telemetry = Telemetry(Tracing(None))
    telemetry.on_batch("m", "1", BatchRecord(3, 0.1, 0.2))
    telemetry.on_batch("m", "1", BatchRecord(5, 0.1, 0.2, failed=True))
    assert value(telemetry, "fovea_batch_size_sum", model="m", version="1") == 8
    assert value(telemetry, "fovea_batch_size_bucket", model="m", version="1", le="4.0") == 1
    assert value(telemetry, "fovea_batches_failed_total", model="m", version="1") == 1


def test_two_services_in_one_process_do_not_share_metrics() -> None:
    one, two = Telemetry(Tracing(None)), Telemetry(Tracing(None))
    with one.request("http"):
        pass
    assert b"fovea_requests_total{" in generate_latest(one.registry)
    assert b"fovea_requests_total{" not in generate_latest(two.registry)


def test_a_failed_request_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry(Tracing(None))
    with caplog.at_level(logging.INFO, "fovea"), pytest.raises(InvalidInputError), telemetry.request("http"):
        raise InvalidInputError("the image is upside down")
    assert "http request failed: 400 the image is upside down" in caplog.text


def test_what_a_full_queue_refuses_is_logged_once_a_second(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = Telemetry(Tracing(None))
    with caplog.at_level(logging.INFO, "fovea"):
        for moment_s in (10.0, 10.5, 10.99, 11.0, 11.5, 20.0):
            monkeypatch.setattr(time, "perf_counter", lambda moment_s=moment_s: moment_s)
            with pytest.raises(QueueFullError), telemetry.request("grpc"):
                raise QueueFullError("no room")
    said = "grpc request failed: UNAVAILABLE no room"
    assert caplog.messages == [said, f"{said}, and 2 more before", f"{said}, and 1 more before"]
    assert value(telemetry, "fovea_requests_rejected_total", protocol="grpc") == 6


def test_one_models_full_queue_does_not_hide_anothers(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = Telemetry(Tracing(None))

    def refuse(protocol: str, model: str) -> None:
        with telemetry.request(protocol) as record:
            record.model = model
            raise QueueFullError(f"no room for {model}")

    monkeypatch.setattr(time, "perf_counter", lambda: 10.0)
    with caplog.at_level(logging.INFO, "fovea"):
        for protocol, model in (("grpc", "a"), ("grpc", "a"), ("grpc", "b"), ("http", "a"), ("http", "a")):
            with pytest.raises(QueueFullError):
                refuse(protocol, model)
    assert caplog.messages == [
        "grpc request failed: UNAVAILABLE no room for a",
        "grpc request failed: UNAVAILABLE no room for b",
        "http request failed: 503 no room for a",
    ]
