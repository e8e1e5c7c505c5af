"""Spans of requests, as a collector gets them from the real service."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from tritonclient.grpc import service_pb2_grpc

from service.errors import StartError
from service.listeners import spans_of
from service.pb.fovea.v1 import classifier_pb2, classifier_pb2_grpc
from service.settings import Settings
from service.spans import resource_of
from tests.conformance.models import write_simple
from tests.conformance.wire import simple_request
from tests.repositories import picture, write_model
from tests.service.collector import Collector, attributes, collecting
from tests.service.launch import GRPC_TRANSPORT, ROOT, RunningService, running, until
from tests.triton import install
from tests.triton.launch import running as running_triton

SPAN = "00f067aa0ba902b7"
"""The caller's."""
RED = picture("red")
STAGES = {"decode", "queue", "inference"}
PAIR = np.arange(16, dtype="<i4").tobytes()
SIMPLE_JSON = (
    b'{"inputs":[{"name":"INPUT0","shape":[1,16],"datatype":"INT32","parameters":{"binary_data_size":64}},'
    b'{"name":"INPUT1","shape":[1,16],"datatype":"INT32","parameters":{"binary_data_size":64}}],'
    b'"parameters":{"binary_data_output":true}}'
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ "colours", "simple", and "broken", which cannot be served."""
    folder = tmp_path_factory.mktemp("spans")
    write_model(folder)
    write_simple(folder)
    write_model(folder, "broken", versions=())
    return folder


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with pytest.MonkeyPatch.context() as patch, collecting() as started:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")  # In ms, of every service that is started here.
        yield started


@pytest.fixture(scope="module")
def service(repository: Path, collector: Collector) -> Iterator[RunningService]:
    """One that records."""
    with running(repository, otlp_endpoint=collector.endpoint) as started:
        yield started


@pytest.fixture
def trace() -> str:
    """A trace of the test's own, sampled."""
    return f"00-{random.getrandbits(128) | 1:032x}-{SPAN}-01"


def classify(service: RunningService, content: bytes = RED, *, model: str = "colours", parent: str = "") -> int:
    url = f"{service.http}/v1/classify?model={model}"
    headers = {"content-type": "image/jpeg", "x-request-id": "mine"} | ({"traceparent": parent} if parent else {})
    return httpx.post(url, content=content, headers=headers, timeout=60).status_code


def infer(connection: socket.socket, *headers: str) -> None:
    """An inference request, in one piece, whose words are known from the second time on."""
    body = SIMPLE_JSON + 2 * PAIR
    lines = (
        "POST /v2/models/simple/infer HTTP/1.1",
        "host: fovea",
        f"content-length: {len(body)}",
        f"inference-header-content-length: {len(SIMPLE_JSON)}",
        *headers,
    )
    connection.sendall("\r\n".join([*lines, "\r\n"]).encode() + body)
    assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def address_of(service: RunningService) -> tuple[str, int]:
    host, _, port = service.http.removeprefix("http://").partition(":")
    return host, int(port)


def in_order(parent: Span, *spans: Span) -> None:
    """One after the other, all within another one."""
    moments = [moment for span in spans for moment in (span.start_time_unix_nano, span.end_time_unix_nano)]
    # The clocks are read one after the other.
    assert parent.start_time_unix_nano - 1_000_000 <= moments[0]
    assert moments == sorted(moments)
    assert moments[-1] <= parent.end_time_unix_nano + 1_000_000


async def test_a_classification_over_http(service: RunningService, collector: Collector, trace: str) -> None:
    assert classify(service, parent=trace) == 200
    (root,) = await collector.roots(trace, 1)
    assert (root.parent_span_id.hex(), root.name) == (SPAN, "POST /v1/classify")
    said = attributes(root)
    assert (said["http.response.status_code"], said["fovea.model"]) == (200, "colours")
    assert said["fovea.request_id"] == "mine"
    stages = collector.children(root)
    assert stages.keys() == STAGES
    in_order(root, stages["decode"], stages["queue"], stages["inference"])
    assert attributes(stages["inference"])["fovea.batch_size"] == 1
    assert collector.resources[0]["service.name"] == "fovea"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, ("fovea", "1.2.3", "")),
        ({"OTEL_SERVICE_NAME": "cameras"}, ("cameras", "1.2.3", "")),
        (
            {"OTEL_RESOURCE_ATTRIBUTES": "service.name=gate,service.version=9,host.name=7"},
            ("gate", "9", "7"),
        ),
    ],
)
def test_opentelemetry_s_own_variables_say_who_it_is(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: tuple[str, str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = resource_of("1.2.3").attributes
    names = ("service.name", "service.version", "host.name")
    assert tuple(found.get(name, "") for name in names) == said
    assert found["telemetry.sdk.language"] == "python"


async def test_known_inference_requests_over_http(service: RunningService, collector: Collector, trace: str) -> None:
    with socket.create_connection(address_of(service), timeout=60) as connection:
        for parent in (trace, trace, trace[:-1] + "0", trace):
            infer(connection, f"traceparent: {parent}")
    first, *known = await collector.roots(trace, 3)
    assert all(root.name == "POST /v2/models/{name}/infer" for root in (first, *known))
    assert all(root.parent_span_id.hex() == SPAN for root in (first, *known))
    # What is known is not read again.
    assert collector.children(first).keys() == STAGES
    assert [collector.children(root).keys() for root in known] == [STAGES - {"decode"}] * 2


@pytest.mark.parametrize("transport", ["grpcio", "native"])
async def test_calls_and_streams(
    service: RunningService, repository: Path, collector: Collector, trace: str, transport: str
) -> None:
    if transport == "native":
        pytest.importorskip("pygrpc_native")
    metadata = (("traceparent", trace),)
    image = classifier_pb2.ClassifyRequest(model="colours", images=[RED] * 2)
    with (
        running(repository, otlp_endpoint=collector.endpoint, grpc_transport=transport)
        if transport != GRPC_TRANSPORT
        else nullcontext(service) as called,
        grpc.insecure_channel(called.grpc) as channel,
    ):
        ours = classifier_pb2_grpc.ClassifierStub(channel)
        theirs = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        ours.Classify(image, metadata=metadata, timeout=60)
        list(ours.ClassifyStream(iter([image]), metadata=metadata, timeout=60))
        for _ in range(2):
            theirs.ModelInfer(simple_request(), metadata=metadata, timeout=60)
        list(theirs.ModelStreamInfer(iter([simple_request()]), metadata=metadata, timeout=60))
        roots = await collector.roots(trace, 5)
    assert [root.name for root in roots] == [
        "fovea.v1.Classifier/Classify",
        "fovea.v1.Classifier/ClassifyStream",
        "inference.GRPCInferenceService/ModelInfer",
        "inference.GRPCInferenceService/ModelInfer",
        "inference.GRPCInferenceService/ModelStreamInfer",
    ]
    for root in roots:
        assert root.parent_span_id.hex() == SPAN
        assert attributes(root)["rpc.grpc.status_code"] == "OK"
        names = [span.name for span in collector.spans if span.parent_span_id == root.span_id]
        assert {"queue", "inference"} <= set(names) <= STAGES
        assert names.count("inference") == attributes(root)["fovea.inferences"]


async def test_only_the_services_own_faults_are_errors(
    service: RunningService, collector: Collector, trace: str
) -> None:
    assert classify(service, b"no image", parent=trace) == 400
    assert classify(service, model="broken", parent=trace) == 503
    wrong, failed = await collector.roots(trace, 2)
    assert (attributes(wrong)["error.type"], wrong.status.code) == ("400", Status.STATUS_CODE_UNSET)
    assert (attributes(failed)["error.type"], failed.status.code) == ("503", Status.STATUS_CODE_ERROR)


async def test_without_a_callers_decision_the_ratio_counts(
    service: RunningService, repository: Path, collector: Collector, trace: str
) -> None:
    collector.spans.clear()
    with running(repository, otlp_endpoint=collector.endpoint, otlp_sampling_ratio=0) as none_of_its_own:
        for parent in ("", trace[:-1] + "0", trace):
            assert classify(none_of_its_own, parent=parent) == 200
    assert [span.name for span in collector.spans].count("POST /v1/classify") == 1
    assert len(await collector.roots(trace, 1)) == 1
    assert classify(service, parent=trace[:-1] + "0") == classify(service) == 200
    await until(lambda: [span.name for span in collector.spans].count("POST /v1/classify") == 2)
    assert not collector.spans[-1].parent_span_id


@pytest.mark.parametrize("recorded", [True, False])
async def test_the_engine_behind_is_told(
    service: RunningService, repository: Path, collector: Collector, trace: str, recorded: bool
) -> None:
    own = {"otlp_endpoint": collector.endpoint} if recorded else {}
    with running(repository, backend="triton", triton_address=service.grpc, **own) as front:
        assert classify(front, parent=trace) == 200
    *in_front, behind = await collector.roots(trace, 1 + recorded)
    assert [root.name for root in in_front] == ["POST /v1/classify"] * recorded
    assert behind.name == "inference.GRPCInferenceService/ModelInfer"
    assert behind.parent_span_id.hex() == (in_front[0].span_id.hex() if recorded else SPAN)


@pytest.mark.system
@pytest.mark.skipif(bool(install.missing()), reason=install.missing())
async def test_a_real_triton_goes_on_with_the_trace(
    repository: Path, collector: Collector, trace: str, tmp_path: Path
) -> None:
    write_model(tmp_path)
    trace_id = bytes.fromhex(trace.split("-")[1])
    traced = ("mode=opentelemetry", "level=TIMESTAMPS", "rate=1", f"opentelemetry,url={collector.endpoint}/v1/traces")
    options = [f"--trace-config={option}" for option in traced]
    with (
        running_triton(tmp_path, options=options) as triton,
        running(tmp_path, backend="triton", triton_address=triton.grpc, otlp_endpoint=collector.endpoint) as front,
    ):
        assert classify(front, parent=trace) == 200

        def told() -> list[Span]:
            """Triton's spans that are children of the request's."""
            spans = list(collector.spans)
            own = {span.span_id for span in spans if span.trace_id == trace_id and span.name == "POST /v1/classify"}
            return [span for span in spans if span.parent_span_id in own and span.kind == Span.SPAN_KIND_SERVER]

        await until(lambda: bool(told()))
        assert [(span.trace_id, span.name) for span in told()] == [(trace_id, "InferRequest")]


def test_a_collector_that_is_not_there_costs_spans_and_nothing_else(repository: Path) -> None:
    with running(repository, otlp_endpoint="http://127.0.0.1:9") as service:
        assert classify(service) == 200


def test_a_service_without_an_endpoint_loads_none_of_it() -> None:
    code = "import sys, service.app, service.__main__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "opentelemetry" not in {name.partition(".")[0] for name in loaded.stdout.split()}


def test_without_the_extra_the_start_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "service.spans", None)
    monkeypatch.setenv("FOVEA_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    with pytest.raises(StartError, match="install the extra 'otlp'"):
        spans_of(Settings())  # type: ignore[call-arg]  # read from the environment
