"""Images to features, over HTTP and gRPC, by a real service that has a classifier and its features."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from PIL import Image

from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1.classifier_pb2_grpc import ClassifierStub as Stub
from tests.repositories import picture, write_model
from tests.service.conftest import MAX_IMAGE_BYTES, MAX_IMAGE_FRAMES, MAX_IMAGES
from tests.service.launch import RunningService, running
from tests.service.pictures import hostile_images

RED, GREEN, BLUE = picture("red"), picture("lime"), picture("blue")
JPEG = {"content-type": "image/jpeg"}
TIMEOUT_S = 60
INVALID, TOO_LARGE = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED


def means(image: bytes) -> Any:
    """What the models give for a picture of one colour: its channels, scaled to 0 … 10."""
    with Image.open(io.BytesIO(image)) as opened:
        return pytest.approx(np.asarray(opened.convert("RGB")).mean((0, 1)) * 10 / 255, abs=1e-4)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    repository = tmp_path_factory.mktemp("embed")
    write_model(repository)
    write_model(repository, "colours_features", versions=(1, 2), extra="version_policy { all { } }", features=True)
    with running(
        repository,
        max_image_bytes=MAX_IMAGE_BYTES,
        max_image_frames=MAX_IMAGE_FRAMES,
        max_images_per_request=MAX_IMAGES,
    ) as started:
        yield started


def error_of(response: httpx.Response, status: int = 400) -> str:
    assert response.status_code == status, response.text
    (error,) = response.json().values()
    return str(error)


def embed(stub: Stub, *images: bytes, **options: Any) -> pb.EmbedResponse:
    response: pb.EmbedResponse = stub.Embed(pb.EmbedRequest(images=images, **options), timeout=TIMEOUT_S)
    return response


def refused(code: grpc.StatusCode, call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(grpc.RpcError) as raised:
        call(*arguments, **options)
    assert raised.value.code() == code, raised.value
    return str(raised.value.details())


# HTTP


def test_a_raw_body_is_answered_by_one_object(http: httpx.Client) -> None:
    body = http.post("/v1/embed", content=RED, headers=JPEG).json()
    assert body.keys() == {"model", "version", "embedding", "timings"}
    assert (body["model"], body["version"]) == ("colours_features", "2")
    assert body["embedding"] == means(RED)
    assert body["timings"].keys() == {"decode_us", "queue_us", "inference_us", "total_us", "batch_size"}


def test_a_form_and_json_are_answered_by_results(http: httpx.Client) -> None:
    files = [("images", (f"{number}.jpg", image, "image/jpeg")) for number, image in enumerate((GREEN, BLUE))]
    encoded = [base64.b64encode(image).decode() for image in (GREEN, BLUE)]
    chosen = {"model": "colours_features", "version": "1"}
    for response in (
        http.post("/v1/embed", files=files, data=chosen),
        http.post("/v1/embed", json={"images": encoded, **chosen}),
        http.post("/v1/embed", json={"images": encoded}, params=chosen),
    ):
        results = response.json()["results"]
        assert [result["embedding"] for result in results] == [means(GREEN), means(BLUE)]
        assert [result["version"] for result in results] == ["1", "1"]


def test_one_bad_image_leaves_its_neighbours_alone(http: httpx.Client) -> None:
    images = [base64.b64encode(RED).decode(), "%%%", base64.b64encode(b"nonsense").decode()]
    good, not_base64, bad = http.post("/v1/embed", json={"images": images}).json()["results"]
    assert good["embedding"] == means(RED)
    assert not_base64["error"].startswith("image 2 of 3: not base64")
    assert bad["error"].startswith("image 3 of 3: not an image")
    assert "not an image" in error_of(http.post("/v1/embed", content=b"nonsense", headers=JPEG))


def test_predictions_cannot_be_asked_for(http: httpx.Client) -> None:
    encoded = [base64.b64encode(RED).decode()]
    error = error_of(http.post("/v1/embed", json={"images": encoded, "top_k": 3}))
    assert "top_k" in error
    assert error.endswith('must be {"images": ["<base64>", …], "model": "…", "version": "…"}, only images required')
    error = error_of(http.post("/v1/embed", files={"image": RED}, data={"top_k": "3"}))
    assert error == "multipart field 'top_k': must be model or version, or have a file name"


def test_the_limits_are_those_of_classification(http: httpx.Client) -> None:
    too_many = {"images": [base64.b64encode(RED).decode()] * (MAX_IMAGES + 1)}
    assert f"a request may have at most {MAX_IMAGES}" in error_of(http.post("/v1/embed", json=too_many), 413)
    too_large = http.post("/v1/embed", content=bytes(MAX_IMAGE_BYTES + 1), headers=JPEG)
    assert f"an image may have at most {MAX_IMAGE_BYTES}" in error_of(too_large, 413)
    assert "content type" in error_of(http.post("/v1/embed", content=RED), 415)


def test_hostile_images(http: httpx.Client) -> None:
    for name, (content, reason, too_large) in hostile_images(MAX_IMAGE_BYTES, MAX_IMAGE_FRAMES).items():
        response = http.post("/v1/embed", content=content, headers=JPEG)
        assert re.search(reason, error_of(response, 413 if too_large else 400)), name
    assert http.post("/v1/embed", content=RED, headers=JPEG).status_code == 200


def test_each_kind_of_model_says_what_it_is_for(http: httpx.Client) -> None:
    error = error_of(http.post("/v1/classify?model=colours_features", content=RED, headers=JPEG))
    assert error == "model 'colours_features' gives features, not classes: /v1/embed and Embed return them"
    error = error_of(http.post("/v1/embed?model=colours", content=RED, headers=JPEG))
    assert error == "model 'colours' gives classes, not features: /v1/classify and Classify return them"


def test_the_classifier_stays_the_default_beside_its_features(http: httpx.Client) -> None:
    assert http.post("/v1/classify", content=RED, headers=JPEG).json()["model"] == "colours"


def test_models_tell_how_many_features_they_give(http: httpx.Client) -> None:
    versions = {model["name"]: model["versions"][0] for model in http.get("/v1/models").json()["models"]}
    assert {name: version["features"] for name, version in versions.items()} == {"colours": 0, "colours_features": 3}
    assert versions["colours_features"]["labels"] == []
    assert versions["colours_features"]["proven"]


def test_the_stages_are_measured(service: RunningService, http: httpx.Client) -> None:
    def count(stage: str) -> float:
        return service.metric("fovea_stage_duration_seconds_count", model="colours_features", version="2", stage=stage)

    stages = ("decode", "queue", "batch_assembly", "inference", "postprocessing", "total")
    before = [count(stage) for stage in stages]
    assert http.post("/v1/embed", content=RED, headers=JPEG).status_code == 200
    assert [count(stage) for stage in stages] == [number + 1 for number in before]
    assert service.metric("fovea_requests_total", protocol="http", model="colours_features", code="200") > 0


def test_the_announcement_tells_which_is_which(service: RunningService) -> None:
    assert "colours_features version 2: 3 features, " in service.announcement
    assert "colours version 1: 3 classes, " in service.announcement


def test_tensors_of_it_are_served_as_of_any_model(http: httpx.Client) -> None:
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [1, 8, 8, 3], "data": [255, 0, 0] * 64}
    answer = http.post("/v2/models/colours_features/infer", json={"inputs": [tensor]}).json()
    assert answer["outputs"][0]["name"] == "features"
    assert answer["outputs"][0]["data"] == pytest.approx([10, 0, 0])


# gRPC


def test_embed_over_grpc(stub: Stub) -> None:
    response = embed(stub, GREEN, BLUE, id="mine")
    assert (response.id, response.model, response.version) == ("mine", "colours_features", "2")
    assert [result.embedding.values for result in response.results] == [means(GREEN), means(BLUE)]
    timings = response.results[0].embedding.timings
    assert timings.total_us >= timings.inference_us > 0


def test_one_bad_image_over_grpc(stub: Stub) -> None:
    good, bad = embed(stub, RED, b"nonsense").results
    assert good.embedding.values == means(RED)
    assert (bad.WhichOneof("outcome"), bad.error.code) == ("error", INVALID.value[0])
    assert bad.error.message.startswith("image 2 of 2: not an image")
    assert "not an image" in refused(INVALID, embed, stub, b"nonsense")


def test_what_is_refused_over_grpc(stub: Stub) -> None:
    assert refused(INVALID, embed, stub, RED, model="colours").endswith("/v1/classify and Classify return them")
    to_classify = pb.ClassifyRequest(images=[RED], model="colours_features")
    assert refused(INVALID, stub.Classify, to_classify).endswith("/v1/embed and Embed return them")
    assert "no images" in refused(INVALID, embed, stub)
    assert "at most" in refused(TOO_LARGE, embed, stub, *[RED] * (MAX_IMAGES + 1))
    assert "'x' is not found" in refused(grpc.StatusCode.NOT_FOUND, embed, stub, RED, model="x")


def test_models_over_grpc(stub: Stub) -> None:
    model = stub.GetModel(pb.GetModelRequest(name="colours_features"), timeout=TIMEOUT_S).model
    assert [(version.version, version.features) for version in model.versions] == [("1", 3), ("2", 3)]
