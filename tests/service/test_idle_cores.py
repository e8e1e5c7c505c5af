from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event, Thread

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tritonclient.grpc import model_config_pb2 as pb

from service.backends import onnx_runtime
from service.backends.idle_cores import IdleCores, Run, is_worth_it
from service.backends.onnx_runtime import OnnxRuntimeEngine, OnnxRuntimeSession
from service.tensors import Array, TensorSpec
from tests.repositories import write_model

ROW = {"pixels": np.zeros((1, 8, 8, 3), np.uint8)}
TWO_ROWS = {"pixels": np.zeros((2, 8, 8, 3), np.uint8)}
SPECS = (TensorSpec("pixels", "UINT8", (-1, 8, 8, 3)),)


class Session:
    """Notes its runs; each ends when it is let."""

    def __init__(self) -> None:
        self.runs = 0
        self.begun = Event()
        self.may_end = Event()
        self.may_end.set()

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        self.runs += 1
        self.begun.set()
        assert self.may_end.wait(10)
        return [np.zeros(1)]


def test_a_lone_row_has_the_wide_session() -> None:
    wide, narrow = Session(), Session()
    cores = IdleCores(wide.run)
    cores.run(narrow.run, [], ROW)
    cores.run(narrow.run, [], ROW)
    assert (wide.runs, narrow.runs) == (2, 0)


def test_several_rows_have_the_narrow_one() -> None:
    wide, narrow = Session(), Session()
    IdleCores(wide.run).run(narrow.run, [], TWO_ROWS)
    assert (wide.runs, narrow.runs) == (0, 1)


@pytest.mark.parametrize("first", [ROW, TWO_ROWS], ids=["wide", "narrow"])
def test_a_row_beside_another_has_the_narrow_one(first: Mapping[str, Array]) -> None:
    wide, busy, narrow = Session(), Session(), Session()
    cores = IdleCores(wide.run)
    running = wide if first is ROW else busy
    running.may_end.clear()
    thread = Thread(target=cores.run, args=(busy.run, [], first))
    thread.start()
    assert running.begun.wait(10)
    cores.run(narrow.run, [], ROW)
    running.may_end.set()
    thread.join()
    assert narrow.runs == 1
    cores.run(narrow.run, [], ROW)
    assert narrow.runs == 1, "alone again"


def test_a_run_that_fails_is_over_too() -> None:
    wide, narrow = Session(), Session()

    def fails(outputs: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        raise ValueError

    cores = IdleCores(wide.run)
    with pytest.raises(ValueError, match=r"^$"):
        cores.run(fails, [], TWO_ROWS)
    cores.run(narrow.run, [], ROW)
    assert wide.runs == 1


def takes(seconds: float) -> Run:
    def run(outputs: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        assert inputs["pixels"].shape == (1, 8, 8, 3)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            pass
        return []

    return run


def test_the_faster_session_is_found() -> None:
    assert is_worth_it(takes(0.001), takes(0.003), SPECS)
    assert not is_worth_it(takes(0.003), takes(0.001), SPECS)
    assert not is_worth_it(takes(0.001), takes(0.001), SPECS)


def test_a_graph_that_zeros_are_nothing_to_has_no_wide_session() -> None:
    def fails(outputs: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        raise ValueError

    assert not is_worth_it(fails, fails, SPECS)


@pytest.mark.parametrize("worth_it", [False, True])
def test_the_sessions_of_a_version_share_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worth_it: bool) -> None:
    monkeypatch.setattr(onnx_runtime, "is_worth_it", lambda *_: worth_it)
    monkeypatch.setattr(onnx_runtime, "available_cores", lambda: 2)
    folder = write_model(tmp_path)
    one, two = OnnxRuntimeEngine("cpu", device_id=0).open(
        folder, "1", pb.ModelConfig(default_model_filename="model.onnx")
    )
    assert isinstance(one, OnnxRuntimeSession)
    assert isinstance(two, OnnxRuntimeSession)
    assert (one.idle_cores is not None) == worth_it
    assert one.idle_cores is two.idle_cores
    assert np.isfinite(one.run({"pixels": np.zeros((1, 8, 8, 3), np.uint8)}, [one.graph.outputs[0].name])[0]).all()


def test_strings_are_bytes_whatever_the_cores_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_runtime, "is_worth_it", lambda *_: True)
    monkeypatch.setattr(onnx_runtime, "available_cores", lambda: 2)
    given = helper.make_tensor_value_info("number", TensorProto.FLOAT, ["N"])
    told = helper.make_tensor_value_info("text", TensorProto.STRING, ["N"])
    nodes = [helper.make_node("Cast", ["number"], ["text"], to=TensorProto.STRING)]
    (tmp_path / "1").mkdir()
    path = tmp_path / "1" / "model.onnx"
    made = helper.make_graph(nodes, "told", [given], [told])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    one, _ = OnnxRuntimeEngine("cpu", device_id=0).open(tmp_path, "1", pb.ModelConfig(default_model_filename=path.name))
    assert one.run({"number": np.ones(1, np.float32)}, ["text"])[0].tolist() == [b"1"]


def test_a_single_core_has_nothing_to_lend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_runtime, "is_worth_it", lambda *_: True)
    monkeypatch.setattr(onnx_runtime, "available_cores", lambda: 1)
    (one,) = OnnxRuntimeEngine("cpu", device_id=0).open(
        write_model(tmp_path), "1", pb.ModelConfig(default_model_filename="model.onnx")
    )
    assert isinstance(one, OnnxRuntimeSession)
    assert one.idle_cores is None
