"""A long time among hostile clients."""

from __future__ import annotations

import itertools
from pathlib import Path

import grpc
import httpx
import pytest

from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1.classifier_pb2_grpc import ClassifierStub as Stub
from tests.repositories import picture, write_model
from tests.service.conftest import MAX_IMAGE_BYTES, MAX_IMAGE_FRAMES
from tests.service.launch import RunningService, running
from tests.service.pictures import hostile_images

REQUESTS = 1000
SMALL_MAX_IMAGE_BYTES = 100_000
"""So that one buffer more or less is not already the 5 %."""

JPEG = {"content-type": "image/jpeg"}


def test_there_are_twenty_of_them() -> None:
    assert len(hostile_images(MAX_IMAGE_BYTES, MAX_IMAGE_FRAMES)) >= 20


@pytest.mark.system
@pytest.mark.timeout(600)
def test_a_thousand_hostile_requests_leave_the_memory_as_it_was(tmp_path: Path) -> None:
    write_model(tmp_path)
    hostile = [content for content, _, _ in hostile_images(SMALL_MAX_IMAGE_BYTES, MAX_IMAGE_FRAMES).values()]
    with (
        running(tmp_path, max_image_bytes=SMALL_MAX_IMAGE_BYTES, max_image_frames=MAX_IMAGE_FRAMES) as service,
        httpx.Client(base_url=service.http, timeout=60) as http,
        grpc.insecure_channel(service.grpc) as channel,
    ):

        def send(count: int) -> None:
            """So many requests: each image in three ways."""
            for content in itertools.islice(itertools.cycle(hostile), count // 3):
                assert http.post("/v1/classify", content=content, headers=JPEG).status_code in (400, 413)
                in_form = http.post("/v1/classify", files={"image": content})
                assert in_form.status_code == 200
                assert in_form.json()["results"][0].keys() == {"error"}
                refuse(Stub(channel), content)

        send(REQUESTS)
        before = service.resident_bytes()
        send(REQUESTS)
        assert service.resident_bytes() < 1.05 * before
        answer = http.post("/v1/classify", content=picture("red"), headers=JPEG)
        assert answer.json()["predictions"][0]["label"] == "red"


@pytest.mark.system
def test_refused_messages_are_not_kept(service: RunningService, stub: Stub) -> None:
    large = bytes(MAX_IMAGE_BYTES + 1)
    refuse(stub, large)
    before = service.resident_bytes()
    for _ in range(200):
        refuse(stub, large)
    assert service.resident_bytes() - before < 20 * len(large)


def refuse(stub: Stub, content: bytes) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        stub.Classify(pb.ClassifyRequest(images=[content]), timeout=60)
    assert raised.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED)


def test_a_configuration_with_letters_that_are_none_is_refused_and_can_be_read_about(tmp_path: Path) -> None:
    """JSON can name half a surrogate pair, which UTF-8 has no bytes for, and the reason has the client's own words."""
    write_model(tmp_path)
    with running(tmp_path, model_control_mode="explicit", load_models="colours") as service:
        body = {"parameters": {"config": r'{"colour\udcde": 1, "colour\udcde": 1}'}}
        answer = httpx.post(f"{service.http}/v2/repository/models/colours/load", json=body, timeout=60)
        assert (answer.status_code, "colour\\udcde" in answer.json()["error"]) == (400, True)
        (entry,) = httpx.post(f"{service.http}/v2/repository/index").json()
        assert (entry["name"], entry["state"]) == ("colours", "READY")
        assert "colour\\\\udcde" in service.metrics_page()
