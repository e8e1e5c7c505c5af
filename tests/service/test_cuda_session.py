"""Batches through memory that is used again, on a GPU where there is one; this host's memory stands for it anywhere."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from tritonclient.grpc import model_config_pb2 as pb

from service.backends.cuda_session import CudaOptions, CudaSession, _alone, _in_use, cuda_options
from service.backends.device import Cuda, Host
from service.backends.engine import Session
from service.backends.instance import Instance
from service.backends.onnx_runtime import CPU, CUDA, OnnxRuntimeSession
from service.errors import ModelError, StartError
from service.loading import open_version
from service.model_config import read_proto
from service.settings import BUNDLED_REPOSITORY
from tests.repositories import SIZE, write_model
from tests.service.test_cuda_memory import why_no_cuda

RANDOM = np.random.default_rng(0)


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return write_model(tmp_path) / "1" / "model.onnx"


@pytest.fixture(params=["host", "gpu"])
def device(request: pytest.FixtureRequest) -> Host:
    if request.param == "host":
        return Host()
    if reason := why_no_cuda() or (CUDA not in ort.get_available_providers() and "this onnxruntime has no CUDA"):
        pytest.skip(reason)
    ort.preload_dlls()
    return Cuda(0)


@pytest.fixture
def session(graph: Path, device: Host) -> Iterator[CudaSession]:
    session = opened(graph, device)
    yield session
    session.close()


def opened(path: Path, device: Host) -> CudaSession:
    def open_session(options: CudaOptions) -> OnnxRuntimeSession:
        return OnnxRuntimeSession(path, [(CUDA, dict(options)), *CPU] if isinstance(device, Cuda) else CPU)

    return CudaSession("colours", open_session, device, graphs=True)


def pixels(rows: int) -> np.ndarray[Any, Any]:
    return RANDOM.integers(0, 256, (rows, SIZE, SIZE, 3), np.uint8)


def logits(batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    means: np.ndarray[Any, Any] = batch.mean((1, 2)) * 10 / 255
    return means


def assert_close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Within so much of the largest value."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def run_in_room(session: Session, batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    room = session.room(len(batch))
    assert room
    room["pixels"][:] = batch
    (found,) = session.run(room, ["logits"])
    return found


def test_what_is_bound_gives_what_the_graph_gives(session: CudaSession) -> None:
    batches = [pixels(rows) for rows in (1, 2, 4, 8, 2, 1, 8, 4)]
    found = [run_in_room(session, batch) for batch in batches]
    # All of them after the last: no result lies in memory that a later batch used.
    for batch, given in zip(batches, found, strict=True):
        assert_close(given, logits(batch))


def test_a_size_has_one_room(session: CudaSession) -> None:
    room = session.room(4)
    assert room
    run_in_room(session, pixels(4))
    assert session.room(4) is room
    assert room["pixels"].shape == (4, SIZE, SIZE, 3)


def test_what_lies_elsewhere_is_run_all_the_same(session: CudaSession) -> None:
    batch = pixels(4)
    session.room(4)
    for inputs in (batch, batch[:3]):
        (found,) = session.run({"pixels": inputs}, ["logits"])
        assert_close(found, logits(inputs))


def test_an_instance_makes_its_batches_in_the_room(session: CudaSession) -> None:
    specs = session.graph.inputs, session.graph.outputs
    instance = Instance(session, *specs, batched=True, batch_sizes=[1, 2, 4, 8])
    room = session.room(4)
    assert room
    room["pixels"][:] = 255
    items = [(pixels(1),), (pixels(2),)]
    results = instance.run(items).results
    for (item,), (result,) in zip(items, results, strict=True):
        assert_close(result, logits(item))
    np.testing.assert_array_equal(room["pixels"][:3], np.concatenate([item for (item,) in items]))
    assert not room["pixels"][3].any()
    # A row that fits only by being repeated is not taken for one that fits.
    with pytest.raises(Exception, match="Got invalid dimensions"):
        instance.run([(pixels(1)[:, :1],)])


def test_each_thread_captures_for_itself(session: CudaSession) -> None:
    batch = pixels(2)
    with ThreadPoolExecutor(1) as thread:
        for run in (run_in_room, lambda *given: thread.submit(run_in_room, *given).result()):
            assert run is not run_in_room or 2 not in session._captured_here()
            assert_close(run(session, batch), logits(batch))
        assert thread.submit(session._captured_here).result() == {2}
    assert session._captured_here() == {2}


def opener(
    path: Path, asked: list[CudaOptions], *, capture: bool = True
) -> Callable[[CudaOptions], OnnxRuntimeSession]:
    def open_session(options: CudaOptions) -> OnnxRuntimeSession:
        asked.append(options)
        session = OnnxRuntimeSession(path, CPU)
        run = session.session.run_with_iobinding

        def run_without_graph(binding: ort.IOBinding, run_options: ort.RunOptions) -> None:
            if run_options.get_run_config_entry("gpu_graph_id") != "-1":
                raise RuntimeError("operation not permitted when stream is capturing")
            run(binding, run_options)

        if not capture:
            session.session.run_with_iobinding = run_without_graph
        return session

    return open_session


def test_a_capture_that_fails_is_said_and_done_without(graph: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[CudaOptions] = []
    session = CudaSession("colours", opener(graph, asked, capture=False), Host(), graphs=True)
    with caplog.at_level(logging.WARNING):
        for batch in (pixels(2), pixels(1), pixels(2)):
            assert_close(run_in_room(session, batch), logits(batch))
    assert [options["enable_cuda_graph"] for options in asked] == ["1", "0"]
    (said,) = caplog.messages
    assert said.startswith(
        "colours: batch size 2 cannot be launched as a CUDA graph, so none is: operation not permitted"
    )


def test_a_session_that_cannot_be_opened_again_can_be_closed(graph: Path) -> None:
    asked: list[CudaOptions] = []

    def open_session(options: CudaOptions) -> OnnxRuntimeSession:
        if asked:
            raise StartError("out of memory")
        return opener(graph, asked, capture=False)(options)

    session = CudaSession("colours", open_session, Host(), graphs=True)
    with pytest.raises(StartError, match="out of memory"):
        run_in_room(session, pixels(2))
    session.close()


def test_a_graph_that_is_not_for_capture_is_opened_without(graph: Path, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[CudaOptions] = []

    def open_session(options: CudaOptions) -> OnnxRuntimeSession:
        if options["enable_cuda_graph"] == "1":
            raise ModelError("it has control flow")
        return opener(graph, asked)(options)

    session = CudaSession("colours", open_session, Host(), graphs=True)
    assert caplog.messages == ["colours: cannot be launched as a CUDA graph: it has control flow"]
    assert run_in_room(session, pixels(2)).shape == (2, 3)
    assert len(asked) == 1


def test_a_graph_that_cannot_be_opened_at_all_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match=r"cannot load model\.onnx"):
        CudaSession("colours", opener(tmp_path / "model.onnx", []), Host(), graphs=True)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("element", "shape", "batch"),
    [
        (TensorProto.FLOAT, ["N", "M"], np.ones((2, 3), np.float32)),
        (TensorProto.STRING, ["N", 2], np.array([[b"a", b"b"]], np.object_)),
        (TensorProto.FLOAT, [], np.float32(3.0)),
    ],
)
def test_what_has_no_fixed_size_is_not_bound(
    element: int, shape: list[str | int], batch: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    tensors = [helper.make_tensor_value_info(name, element, shape) for name in ("x", "y")]
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    model = helper.make_model(
        helper.make_graph(nodes, "same", tensors[:1], tensors[1:]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "model.onnx")
    asked: list[CudaOptions] = []
    session = CudaSession("colours", opener(tmp_path / "model.onnx", asked), Host(), graphs=True)
    assert session.room(2) is None
    (found,) = session.run({"x": np.asarray(batch)}, ["y"])
    np.testing.assert_array_equal(found, batch)
    # No size is warmed up here, so that none may take its time; and no graph has its addresses.
    assert asked[-1] == cuda_options(0, fixed=False, graphs=False)
    assert asked[-1]["cudnn_conv_algo_search"] == "HEURISTIC"


def test_a_fixed_graph_may_search_as_long_as_it_takes() -> None:
    options = cuda_options(3, fixed=True, graphs=True)
    assert options["device_id"] == "3"
    assert options["cudnn_conv_algo_search"] == "EXHAUSTIVE"


def test_a_capture_is_alone() -> None:
    inside, captured, leave = threading.Event(), threading.Event(), threading.Event()

    def capture() -> None:
        with _alone():
            captured.set()

    def use() -> None:
        with _in_use():
            inside.set()
            assert leave.wait(60)
            assert not captured.is_set()

    with ThreadPoolExecutor(2) as threads:
        using = threads.submit(use)
        assert inside.wait(60)
        capturing = threads.submit(capture)
        leave.set()
        using.result()
        capturing.result()
    with _in_use(), _in_use():
        pass


class DeviceEngine:
    """An engine whose sessions are all on one device."""

    def __init__(self, device: Host) -> None:
        self._device = device

    def open(self, folder: Path, version: str, config: pb.ModelConfig) -> list[Session]:
        config.instance_group.add(count=2)
        return [opened(folder / version / "model.onnx", self._device) for _ in range(2)]

    def refresh(self) -> None: ...

    def lacks(self, model: str, version: str) -> str:
        return ""

    def close(self) -> None: ...


def test_the_bundled_model_is_warmed_up_and_proven(device: Host) -> None:
    folder = BUNDLED_REPOSITORY / "cifar10"
    version = open_version(folder, "1", read_proto(folder), DeviceEngine(device))
    assert version.proven
    first, _ = version.instances
    rows = RANDOM.integers(0, 256, (5, 32, 32, 3), np.uint8)
    (together,) = first.run([(rows,)]).results
    alone = [first.run([(rows[i : i + 1],)]).results[0] for i in range(5)]
    assert_close(together[0], np.concatenate([logits for (logits,) in alone]), 0.02)
    for instance in version.instances:
        instance.close()


def test_without_cudas_runtime_the_start_fails() -> None:
    if find_spec("cuda"):
        pytest.skip("cuda-bindings is installed")
    with pytest.raises(StartError, match="install the extra 'gpu', not 'cpu'"):
        Cuda(0)
