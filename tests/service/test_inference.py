"""Tensor requests to the real service: what goes beyond the protocol's clauses, which tests/conformance has."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import tritonclient.grpc
import tritonclient.http
from onnx import TensorProto, helper
from PIL import Image
from tritonclient.utils import InferenceServerException

from service.images import Pixels
from tests.repositories import LABELS, picture, write_model
from tests.service.launch import RunningService, running
from tests.service.pictures import encode, scene

SIZE = 12
MEAN, STD = (110.0, 120.0, 130.0), (50.0, 60.0, 70.0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """ "colours", our own kind; "foreign", normalised B,G,R planes; "single", the same without a batch axis, giving
    probabilities in half precision; "boxes", no classifier; "bare", a graph and nothing else."""
    repository = tmp_path_factory.mktemp("models")
    write_model(repository)
    numbers = {"mean": "130,120,110", "std": "70,60,50", "channel_order": "BGR", "resize_short_side": "12"}
    write_graph(repository, "foreign", planes("N"), numbers, "max_batch_size: 4 dynamic_batching { }")
    scores = {"scale": "0.00392156862745098"}
    write_graph(repository, "single", planes(1, TensorProto.FLOAT16, softmax=True), scores, probabilities=True)
    write_graph(repository, "boxes", boxes(), {})
    (repository / "bare" / "1").mkdir(parents=True)
    onnx.save(planes("N"), repository / "bare" / "1" / "model.onnx")
    with running(repository, max_images_per_request=40) as started:
        yield started


def write_graph(
    repository: Path,
    name: str,
    graph: onnx.ModelProto,
    preprocessing: dict[str, str],
    text: str = "",
    *,
    probabilities: bool = False,
) -> None:
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    onnx.save(graph, folder / "1" / "model.onnx")
    parameters = {f"preprocessing.{key}": value for key, value in preprocessing.items()}
    if probabilities:
        parameters["classification.scores"] = "probabilities"
    for key, value in parameters.items():
        text += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    (folder / "config.pbtxt").write_text(text)


def planes(batch: str | int, datatype: int = TensorProto.FLOAT, *, softmax: bool = False) -> onnx.ModelProto:
    """The mean of each channel's plane, (batch, 3, 1, 1), or its softmax."""
    nodes = [helper.make_node("ReduceMean", ["x", "axes"], ["means"], keepdims=1)]
    attributes: dict[str, Any] = {"axis": 1} if softmax else {}
    last = helper.make_node("Softmax" if softmax else "Identity", ["means"], ["y"], **attributes)
    nodes.append(last)
    return model(
        nodes,
        helper.make_tensor_value_info("x", datatype, [batch, 3, SIZE, SIZE]),
        helper.make_tensor_value_info("y", datatype, [batch, 3, 1, 1]),
    )


def boxes() -> onnx.ModelProto:
    """Four numbers for each pixel: a detector's output."""
    nodes = [helper.make_node("Concat", ["x", "x", "x", "x"], ["y"], axis=1)]
    return model(
        nodes,
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 5]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 5]),
    )


def model(nodes: list[onnx.NodeProto], x: onnx.ValueInfoProto, y: onnx.ValueInfoProto) -> onnx.ModelProto:
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    made = helper.make_model(
        helper.make_graph(nodes, "made", [x], [y], [axes]), opset_imports=[helper.make_opsetid("", 18)], ir_version=8
    )
    onnx.checker.check_model(made)
    return made


def upright(content: bytes) -> Pixels:
    """A square picture at the models' size."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


@pytest.fixture(params=["http", "grpc"])
def client(models: RunningService, request: pytest.FixtureRequest) -> Iterator[object]:
    if request.param == "http":
        with tritonclient.http.InferenceServerClient(models.http.removeprefix("http://")) as client:
            yield client
    else:
        with tritonclient.grpc.InferenceServerClient(models.grpc) as client:
            yield client


def infer(client: object, name: str, tensor: str, values: object, datatype: str, classes: int = 0):  # type: ignore[no-untyped-def]
    library = tritonclient.http if isinstance(client, tritonclient.http.InferenceServerClient) else tritonclient.grpc
    array = np.asarray(values, np.object_ if datatype == "BYTES" else None)
    given = library.InferInput(tensor, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    output = {"colours": "logits"}.get(name, "y")
    wanted = [library.InferRequestedOutput(output, class_count=classes)]
    return client.infer(name, [given], outputs=wanted).as_numpy(output)  # type: ignore[attr-defined]


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_encoded_images_in_the_place_of_a_tensor(client: object, shape: tuple[int, ...]) -> None:
    images = np.array([picture(colour) for colour in ("red", "lime", "blue")], np.object_).reshape(shape)
    logits = infer(client, "colours", "pixels", images, "BYTES")
    np.testing.assert_allclose(logits, 10 * np.eye(3), atol=0.1)
    strings = infer(client, "colours", "pixels", images, "BYTES", classes=1)
    assert [row[0].split(b":")[2].decode() for row in strings] == list(LABELS)


def test_an_image_that_cannot_be_decoded_is_named(client: object) -> None:
    images = [picture("red"), b"no image"]
    with pytest.raises(InferenceServerException, match="image 2 of 2: not an image"):
        infer(client, "colours", "pixels", images, "BYTES")
    with pytest.raises(InferenceServerException, match=r"shape \[9\]: must be \[N\] or \[N,1\], N from 1 to 8"):
        infer(client, "colours", "pixels", [picture("red")] * 9, "BYTES")
    with pytest.raises(InferenceServerException, match="data-type is 'BYTES'"):
        infer(client, "boxes", "x", [b"1"], "BYTES")


def test_a_foreign_models_images_are_normalised_as_its_config_says(models: RunningService, client: object) -> None:
    content = encode(scene(40, 40), "PNG")
    pixels = upright(content)
    expected = ((pixels.astype(np.float64) - MEAN) / STD).mean((0, 1))[::-1]
    over_protocol = infer(client, "foreign", "x", [content], "BYTES")
    np.testing.assert_allclose(over_protocol.reshape(3), expected, rtol=1e-4, atol=1e-5)
    answer = httpx.post(
        f"{models.http}/v1/classify?model=foreign", content=content, headers={"content-type": "image/png"}
    ).json()
    probabilities = np.exp(expected) / np.exp(expected).sum()
    found = {prediction["index"]: prediction["probability"] for prediction in answer["predictions"]}
    np.testing.assert_allclose([found[index] for index in range(3)], probabilities, atol=1e-4)


def test_probabilities_of_a_model_without_a_batch_axis(models: RunningService) -> None:
    content = encode(scene(40, 40), "PNG")
    means = upright(content).mean((0, 1)) / 255
    answer = httpx.post(
        f"{models.http}/v1/classify?model=single", content=content, headers={"content-type": "image/png"}
    ).json()
    found = {prediction["index"]: prediction["probability"] for prediction in answer["predictions"]}
    np.testing.assert_allclose([found[index] for index in range(3)], np.exp(means) / np.exp(means).sum(), atol=2e-3)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("boxes", "its input has dims"), ("bare", "none of the parameters preprocessing.scale")],
)
def test_what_is_no_image_classifier_says_why_and_serves_tensors(
    models: RunningService, client: object, name: str, reason: str
) -> None:
    refused = httpx.post(
        f"{models.http}/v1/classify?model={name}", content=picture("red"), headers={"content-type": "image/jpeg"}
    )
    assert refused.status_code == 400
    assert f"images cannot be sent to model '{name}', tensors can: " in refused.json()["error"]
    assert reason in refused.json()["error"]
    values = np.random.default_rng(0).random((1, 1, 5) if name == "boxes" else (2, 3, SIZE, SIZE), np.float32)
    answer = infer(client, name, "x", values, "FP32")
    expected = np.repeat(values, 4, 1) if name == "boxes" else values.mean((2, 3), keepdims=True)
    np.testing.assert_allclose(answer, expected, rtol=1e-5)


def test_models_say_whether_images_can_be_sent(models: RunningService) -> None:
    shown = {
        found["name"]: found["versions"][0]["input_shape"]
        for found in httpx.get(f"{models.http}/v1/models").json()["models"]
    }
    assert shown == {
        "bare": [],
        "boxes": [],
        "colours": [8, 8, 3],
        "foreign": [SIZE, SIZE, 3],
        "single": [SIZE, SIZE, 3],
    }
