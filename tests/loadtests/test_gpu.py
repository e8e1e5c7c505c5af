"""What a GPU is measured by, on what is here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from loadtests.gpu.__main__ import main
from loadtests.gpu.limits import Rates, Work, limits, work_of
from loadtests.gpu.memory import cuda_region, shared_request, system_region
from loadtests.gpu.page import page
from loadtests.gpu.result import Result, Served, Subject
from loadtests.inprocess import Arrangement, measure_arrangements
from loadtests.peers.answers import drawn_images
from loadtests.peers.model import opened_model
from loadtests.peers.protocol import OIP_GRPC, OIP_HTTP, Protocol, ask
from loadtests.peers.resnet import PRECISIONS
from loadtests.peers.result import Ceiling
from tests.repositories import write_model
from tests.service.launch import RunningService, running
from tests.service.test_cuda_memory import why_no_cuda


def port(service: RunningService, protocol: Protocol) -> int:
    return int((service.grpc if protocol is OIP_GRPC else service.http).rpartition(":")[2])


@pytest.mark.parametrize("name", PRECISIONS)
def test_resnet50_is_what_it_is_known_to_be(name: str) -> None:
    with opened_model(name) as model:
        onnx.checker.check_model(model.file)
        work = work_of(model.file)
        logits = model.logits(np.concatenate(drawn_images(model, 2)))
    assert work.multiply_adds == 4_089_184_256
    assert work.input_bytes == 224 * 224 * 3
    item_bytes = 2 if work.precision == "float16" else 4
    assert work.weight_bytes == pytest.approx(25.5e6 * item_bytes, rel=0.01)
    assert logits.shape == (2, 1000)
    assert logits.dtype == np.float32
    assert 0.1 < np.abs(logits).max() < 10


def test_both_precisions_are_one_network() -> None:
    logits = []
    for name in PRECISIONS:
        with opened_model(name) as model:
            logits.append(model.logits(drawn_images(model, 1)[0]))
    np.testing.assert_allclose(logits[0], logits[1], atol=0.01)


def test_products_count_as_well_as_convolutions(tmp_path: Path) -> None:
    weights = [
        numpy_helper.from_array(np.zeros((7, 5), np.float16), "first"),
        numpy_helper.from_array(np.zeros((4, 7), np.float16), "second"),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["between"]),
        helper.make_node("Gemm", ["between", "third"], ["y"], transB=1),
        helper.make_node("Transpose", ["second"], ["turned"]),
    ]
    weights.append(numpy_helper.from_array(np.zeros((3, 5), np.float16), "third"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [None, 7])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT16, [None, 3])
    graph = helper.make_graph(nodes, "products", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), tmp_path / "model.onnx")
    assert work_of(tmp_path / "model.onnx") == Work(7 * 5 + 5 * 3, 14, 2 * (35 + 28 + 15), "float16")


def test_a_shape_that_is_not_known_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Transpose", ["places"], ["turned"]),
        helper.make_node("Cast", ["turned"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["numbers", "weight"], ["y"], name="product"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M", 3])
    weights = [numpy_helper.from_array(np.zeros((2, 3), np.float32), "weight")]
    model = helper.make_model(helper.make_graph(nodes, "open", [x], [y], weights))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"the shapes of 'product' \(MatMul\) are not known"):
        work_of(tmp_path / "model.onnx")


def test_limits_are_of_what_is_known() -> None:
    work = Work(multiply_adds=10**9, input_bytes=1000, weight_bytes=8000, precision="float16")
    assert limits(work, Rates({"float32": 1.0}, None, None), 8) == {}
    assert limits(work, Rates({"float16": 4.0}, 5e6, 8e6), 8) == {"arithmetic": 2000, "link": 5000, "memory": 4000}


@pytest.mark.parametrize("protocol", [OIP_HTTP, OIP_GRPC], ids=["http", "grpc"])
def test_images_in_shared_memory(protocol: Protocol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "models")
    monkeypatch.setenv("FOVEA_MODEL_REPOSITORY", str(tmp_path / "models"))
    with running(tmp_path / "models", system_shared_memory=True) as service, opened_model("colours") as model:
        pixels = np.concatenate(drawn_images(model, 4))
        with system_region(service.http, pixels.tobytes()):
            body = ask(protocol, port(service, protocol), shared_request(protocol.wire, model, 3))
        np.testing.assert_allclose(protocol.logits(model, body), model.logits(pixels[:3]), rtol=1e-4)


def test_images_in_memory_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := why_no_cuda():
        pytest.skip(reason)
    write_model(tmp_path / "models")
    monkeypatch.setenv("FOVEA_MODEL_REPOSITORY", str(tmp_path / "models"))
    with running(tmp_path / "models", cuda_shared_memory=True) as service, opened_model("colours") as model:
        pixels = np.concatenate(drawn_images(model, 4))
        with cuda_region(service.http, pixels.tobytes(), 0):
            body = ask(OIP_HTTP, port(service, OIP_HTTP), shared_request("HTTP", model, 3))
        np.testing.assert_allclose(OIP_HTTP.logits(model, body), model.logits(pixels[:3]), rtol=1e-4)


def test_cuda_that_cannot_be_had_is_said(tmp_path: Path) -> None:
    if not why_no_cuda():
        pytest.skip("there is a GPU")
    file = write_model(tmp_path) / "1" / "model.onnx"
    pixels = np.zeros((8, 8, 3), np.uint8)
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(SystemExit, match="CUDA was asked"):
        measure_arrangements(file, pixels, [Arrangement(1, 1)], 1.0, {"device_id": "0"})


def served(number: int, images_per_s: float, memory: str = "message", joules: float | None = None) -> Served:
    return Served("net", number, "gRPC", memory, 8, 64, images_per_s, 1, 2.0, 3.0, joules, 0.5)


def test_shares_are_of_the_same_round_and_its_best_arrangement() -> None:
    work = Work(10**9, 1000, 8000, "float16")
    result = Result(
        facts={"On": "CUDA device 0"},
        subjects=(Subject("net", work, {"arithmetic": 10_000.0, "link": 20_000.0}),),
        ceilings=(
            Ceiling("net", 1, 1, 8, 1000.0),
            Ceiling("net", 1, 2, 8, 2000.0),
            Ceiling("net", 2, 1, 8, 4000.0),
            Ceiling("net", 2, 2, 8, 1000.0),
        ),
        served=(served(1, 1000.0, joules=0.25), served(2, 3000.0, joules=0.75), served(1, 1500.0, "cuda")),
    )
    lines = page(result).splitlines()
    assert "- On: CUDA device 0" in lines
    assert "The arithmetic allows 10,000 images/s." in lines
    assert "| 1 session, batch size 8 | 2,500 | 1,000 – 4,000 | 0.250 |" in lines
    assert (
        "| gRPC | 8 | 64 | 2,000 | 1,000 – 3,000 | 0.625 | 0.500 – 0.750 | 0.200 | 2.00 | 3.00 | 0.500 | 2 |" in lines
    )
    assert (
        "| gRPC, cuda shared memory | 8 | 64 | 1,500 | 1,500 – 1,500 | 0.750 | 0.750 – 0.750 | 0.150 | 2.00 | 3.00 "
        "| – | 1 |" in lines
    )


@pytest.mark.system
@pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed (package nghttp2-client)")
def test_a_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(tmp_path / "models")
    monkeypatch.setenv("FOVEA_MODEL_REPOSITORY", str(tmp_path / "models"))
    monkeypatch.setattr("loadtests.results.RESULTS", tmp_path / "results")
    arguments = ["--execution-provider", "cpu", "--rounds", "1", "--duration-s", "0.5", "--batch-sizes", "1", "4"]
    assert main([*arguments, "--images", "2", "8", "9", "--in-flight", "16", "--link-gb-per-s", "10"]) == 0
    (file,) = (tmp_path / "results").glob("*/gpu.json")
    assert file.with_suffix(".md").read_text() in capsys.readouterr().out
    result = json.loads(file.read_text())
    assert {(each["wire"], each["memory"], each["images"], each["connections"]) for each in result["served"]} == {
        (wire, memory, images, 16 // images) for wire in ("HTTP", "gRPC") for memory in ("message", "system")
        for images in (2, 8)
    }  # fmt: skip
    assert all(each["images_per_s"] > 0 and not each["failed"] for each in result["served"])
    assert [each["batch_size"] for each in result["ceilings"]] == [1, 4]
    assert result["subjects"][0]["limits"] == {"link": 10e9 / (8 * 8 * 3)}
