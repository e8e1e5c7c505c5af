"""Nine well-known classifiers that the onnx package ships, with the outputs that it has for them, served together."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import onnx.numpy_helper
import pytest
import tritonclient.grpc
import tritonclient.http

from tests.repositories import picture
from tests.service.launch import RunningService, running

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
MODELS = sorted(path.stem for path in LIGHT.glob("light_*.onnx"))
CONFIG = """\
instance_group { count: 1 kind: KIND_CPU }
parameters { key: "preprocessing.resize_short_side" value { string_value: "256" } }
parameters { key: "preprocessing.mean" value { string_value: "123.675, 116.28, 103.53" } }
parameters { key: "preprocessing.std" value { string_value: "58.395, 57.12, 57.375" } }
parameters { key: "classification.scores" value { string_value: "probabilities" } }
"""

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    repository = tmp_path_factory.mktemp("light")
    for name in MODELS:
        folder = repository / name / "1"
        folder.mkdir(parents=True)
        shutil.copy(LIGHT / f"{name}.onnx", folder / "model.onnx")
        (repository / name / "config.pbtxt").write_text(CONFIG)
    with running(repository) as service:
        yield service


def test_all_nine_are_here() -> None:
    assert len(MODELS) == 9


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("library", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def test_the_reference_output(light: RunningService, name: str, library: object) -> None:
    """Each input element is its index over their number, as the onnx package's own tests have it."""
    reference = onnx.numpy_helper.to_array(onnx.load_tensor(LIGHT / f"{name}_output_0.pb"))
    address = light.http.removeprefix("http://") if library is tritonclient.http else light.grpc
    graph = onnx.load(LIGHT / f"{name}.onnx").graph
    # Old graphs list their weights among the inputs.
    (tensor,) = {value.name for value in graph.input} - {value.name for value in graph.initializer}
    values = (np.arange(3 * 224 * 224).reshape(1, 3, 224, 224) / (3 * 224 * 224)).astype(np.float32)
    given = library.InferInput(tensor, [1, 3, 224, 224], "FP32")  # type: ignore[attr-defined]
    given.set_data_from_numpy(values)
    with library.InferenceServerClient(address) as client:  # type: ignore[attr-defined]
        answer = client.infer(name, [given]).as_numpy(graph.output[0].name)
    np.testing.assert_allclose(answer, reference, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_a_picture_gets_one_of_a_thousand_labels(light: RunningService, name: str) -> None:
    answer = httpx.post(
        f"{light.http}/v1/classify?model={name}&top_k=1000",
        content=picture("red", size=(500, 375)),
        headers={"content-type": "image/jpeg"},
        timeout=60,
    ).json()
    predictions = answer["predictions"]
    assert sorted(prediction["index"] for prediction in predictions) == list(range(1000))
    assert [p["probability"] for p in predictions] == sorted((p["probability"] for p in predictions), reverse=True)
