from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2 as pb

from service.errors import ModelError
from service.image_contract import ImageContract, NoImagesError, image_contract
from service.images import Pixels, Preprocessing
from service.model_config import complete
from service.tensors import Graph, TensorSpec

UINT8 = TensorSpec("pixels", "UINT8", (-1, 8, 8, 3))
FP32 = TensorSpec("pixels", "FP32", (-1, 3, 8, 8))
LOGITS = TensorSpec("logits", "FP32", (-1, 3))
LABELS = "red\ngreen\nblue\n"


def contract(
    folder: Path,
    *inputs: TensorSpec,
    outputs: tuple[TensorSpec, ...] = (LOGITS,),
    labels: str | None = None,
    parameters: dict[str, str] | None = None,
    **named: str,
) -> ImageContract:
    """The contract of a model made of these tensors; `named` are parameters with __ for a dot."""
    proto = pb.ModelConfig()
    for key, value in {**(parameters or {}), **named}.items():
        proto.parameters[key.replace("__", ".")].string_value = value
    batched = inputs[0].dims[0] == -1
    proto.max_batch_size = 8 if batched else 0
    for spec in outputs:
        proto.output.add(
            name=spec.name,
            data_type=pb.DataType.Value(f"TYPE_{spec.datatype}"),
            dims=spec.dims[1:] if batched else spec.dims,
        )
    if labels is not None:
        (folder / "labels.txt").write_text(labels)
        proto.output[-1].label_filename = "labels.txt"
    return image_contract(complete(proto, Graph(inputs, outputs), folder))


def pixels() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def test_pixels_go_to_our_own_exports_as_they_are(tmp_path: Path) -> None:
    found = contract(tmp_path, UINT8, labels=LABELS)
    np.testing.assert_array_equal(found.to_input(pixels()), pixels()[None])
    assert found.preprocessing == Preprocessing(8, 8, 8, "bilinear")
    assert (found.labels, found.scores, found.output) == (("red", "green", "blue"), "logits", 0)


def test_a_foreign_model_gets_its_own_numbers(tmp_path: Path) -> None:
    found = contract(
        tmp_path,
        FP32,
        preprocessing__scale="0.5",
        preprocessing__mean="1, 2, 3",
        preprocessing__std="4,5,6",
        preprocessing__channel_order="BGR",
    )
    bgr = pixels()[..., ::-1].astype(np.float32)
    expected = ((bgr * 0.5 - (1, 2, 3)) / (4, 5, 6)).transpose(2, 0, 1)[None]
    got = found.to_input(pixels())
    assert got.dtype == np.float32
    assert got.shape == (1, 3, 8, 8)
    np.testing.assert_allclose(got.astype(np.float64), expected.astype(np.float64), rtol=1e-6)


def test_half_precision_without_a_batch_axis(tmp_path: Path) -> None:
    spec = TensorSpec("pixels", "FP16", (1, 3, 8, 8))
    scores = TensorSpec("scores", "FP32", (1, 3, 1, 1))
    found = contract(tmp_path, spec, outputs=(scores,), preprocessing__scale="0.01")
    got = found.to_input(pixels())
    assert got.dtype == np.float16
    assert got.shape == (1, 3, 8, 8)
    assert found.labels == ("0", "1", "2")


def test_what_the_config_says_of_preprocessing(tmp_path: Path) -> None:
    found = contract(
        tmp_path,
        UINT8,
        preprocessing__resize_short_side="10",
        preprocessing__resize_filter="bicubic",
        preprocessing__crop="center",
        classification__scores="probabilities",
        something_else="is nobody's business here",
    )
    assert found.preprocessing == Preprocessing(8, 8, 10, "bicubic")
    assert found.scores == "probabilities"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("preprocessing__resize_short_side", "7", "at least 8"),
        ("preprocessing__resize_short_side", "many", "'many': must be a whole number"),
        ("preprocessing__resize_filter", "nearest", "'nearest': must be bilinear or bicubic or lanczos"),
        ("preprocessing__crop", "random", "'random': must be center"),
        ("preprocessing__channel_order", "GRB", "'GRB': must be RGB or BGR"),
        ("preprocessing__resize_mode", "squash", "unknown parameter preprocessing.resize_mode"),
        ("preprocessing__mean", "0.5", "unknown parameter preprocessing.mean"),
        ("classification__scores", "softmax", "'softmax': must be logits or probabilities"),
        ("classification__output", "scores", "'scores': must be one of logits"),
    ],
)
def test_parameters_that_the_service_cannot_follow(tmp_path: Path, key: str, value: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        contract(tmp_path, UINT8, parameters={key: value})


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("preprocessing__std", "1,0,1", "std must not be zero"),
        ("preprocessing__mean", "1,2", "'1,2': must be one number, or one for each of 3 channels"),
        ("preprocessing__mean", "nan", "'nan': must be one number"),
        ("preprocessing__scale", "1,2,3", "scale must be one number"),
    ],
)
def test_wrong_numbers(tmp_path: Path, key: str, value: str, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        contract(tmp_path, FP32, parameters={key: value})


def test_labels_must_be_as_many_as_the_classes(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"labels\.txt: 2 labels for 3 classes"):
        contract(tmp_path, UINT8, labels="red\ngreen\n")


def test_labels_count_the_classes_that_the_graph_leaves_open(tmp_path: Path) -> None:
    scores = TensorSpec("logits", "FP32", (-1, -1))
    found = contract(tmp_path, UINT8, outputs=(scores,), labels=LABELS)
    assert len(found.labels) == 3
    with pytest.raises(NoImagesError, match="no fixed number of classes"):
        contract(tmp_path, UINT8, outputs=(scores,))


def test_the_scores_among_several_outputs(tmp_path: Path) -> None:
    features = TensorSpec("features", "FP32", (-1, 7))
    assert contract(tmp_path, UINT8, outputs=(features, LOGITS), labels=LABELS).output == 1
    named = contract(tmp_path, UINT8, outputs=(features, LOGITS), classification__output="logits")
    assert named.output == 1
    with pytest.raises(NoImagesError, match="does not say which holds the scores"):
        contract(tmp_path, UINT8, outputs=(features, LOGITS))


@pytest.mark.parametrize(
    ("inputs", "outputs", "reason"),
    [
        ((UINT8, TensorSpec("mask", "BOOL", (-1, 8))), (LOGITS,), "it has 2 inputs"),
        ((TensorSpec("pixels", "INT64", (-1, 8, 8, 3)),), (LOGITS,), "its input is INT64"),
        ((TensorSpec("pixels", "UINT8", (-1, 8, 8, 1)),), (LOGITS,), "which axis are the 3 channels"),
        ((TensorSpec("pixels", "UINT8", (-1, 3, 8, 3)),), (LOGITS,), "which axis are the 3 channels"),
        ((TensorSpec("pixels", "UINT8", (-1, -1, -1, 3)),), (LOGITS,), "all fixed"),
        ((TensorSpec("words", "UINT8", (-1, 8)),), (LOGITS,), "a height, a width and 3 channels"),
        ((FP32,), (LOGITS,), "none of the parameters preprocessing.scale"),
        ((UINT8,), (TensorSpec("class", "INT64", (-1, 1)),), "its output 'class' is INT64"),
        ((UINT8,), (TensorSpec("boxes", "FP32", (-1, 100, 4)),), "must be one score for each class"),
    ],
)
def test_models_that_images_cannot_be_sent_to(
    tmp_path: Path, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], reason: str
) -> None:
    with pytest.raises(NoImagesError, match=reason):
        contract(tmp_path, *inputs, outputs=outputs)


def test_a_model_of_features(tmp_path: Path) -> None:
    features = TensorSpec("features", "FP32", (-1, 256))
    found = contract(tmp_path, UINT8, outputs=(LOGITS, features), features__output="features")
    assert (found.output, found.features, found.labels) == (1, 256, ())
    unbatched = TensorSpec("pixels", "UINT8", (1, 8, 8, 3)), (TensorSpec("features", "FP32", (1, 256)),)
    assert contract(tmp_path, unbatched[0], outputs=unbatched[1], features__output="features").features == 256
    assert contract(tmp_path, UINT8, labels=LABELS).features == 0


@pytest.mark.parametrize(
    ("output", "parameters", "reason"),
    [
        (LOGITS, {"features.output": "nothing"}, "features.output is 'nothing': must be one of logits"),
        (TensorSpec("f", "FP16", (-1, 256)), {"features.output": "f"}, "'f' is FP16 with dims .256.: must be FP32"),
        (TensorSpec("f", "FP32", (-1, 8, 8)), {"features.output": "f"}, "dims .8, 8.: must be FP32, a fixed number"),
        (TensorSpec("f", "FP32", (-1, -1)), {"features.output": "f"}, "dims .-1.: must be FP32, a fixed number"),
        (LOGITS, {"features.output": "logits", "classification.output": "logits"}, "classification.output"),
        (LOGITS, {"features.size": "3"}, "unknown parameter features.size"),
    ],
)
def test_features_that_cannot_be_given(
    tmp_path: Path, output: TensorSpec, parameters: dict[str, str], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        contract(tmp_path, UINT8, outputs=(output,), parameters=parameters)
