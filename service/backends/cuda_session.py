"""A session on a GPU: every batch of a size goes through the same memory, and is launched as one CUDA graph."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from service.backends.device import Host
from service.tensors import DTYPES, Array, Graph, TensorSpec

if TYPE_CHECKING:
    from service.backends.onnx_runtime import OnnxRuntimeSession

log = logging.getLogger("fovea.repository")

CudaOptions = Mapping[str, str]
"""Of ONNX Runtime's CUDA execution provider."""

NO_GRAPH = -1
"""In the place of a graph's id: launch the kernels one by one."""


def cuda_options(device_id: int, *, fixed: bool, graphs: bool) -> dict[str, str]:
    """How ONNX Runtime is to use a GPU for a CNN.

    Args:
        fixed: whether only sizes occur that were warmed up.
        graphs: whether launches are captured as CUDA graphs.
    """
    return {
        "device_id": str(device_id),
        # Trying every algorithm takes seconds for each new size; no request waits for it where all are warmed up.
        "cudnn_conv_algo_search": "EXHAUSTIVE" if fixed else "HEURISTIC",
        # The fast algorithms are those that need room.
        "cudnn_conv_use_max_workspace": "1",
        # In the session's own stream, despite the name. What is bound needs no copy from ONNX Runtime.
        "do_copy_in_default_stream": "1",
        # Tensor cores for float32: 10 bits of mantissa, well within the golden sample's tolerance.
        "use_tf32": "1",
        # The layout that tensor cores take; without it cuDNN transposes around each convolution.
        "prefer_nhwc": "1",
        # The sizes are known after the warm-up: doubling would only keep memory from the other instances.
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": "1" if graphs else "0",
    }


class CudaSession:
    """A session whose batches of each size have memory of their own, page-locked here, and bound on the device.

    Where a shape is open beyond the batch axis, or a tensor has strings, nothing is bound, and no graph is captured.

    Args:
        name: of the model, for the log.
        open_session: opens a session with these options.
        graphs: whether to launch each size as one CUDA graph. A graph that cannot be had is said in the log, and the
            kernels are launched one by one.

    Raises:
        ModelError, StartError: as `open_session`.
    """

    slow_at_new_sizes = True
    rows_at_once: int | None = None

    def __init__(
        self, name: str, open_session: Callable[[CudaOptions], OnnxRuntimeSession], device: Host, *, graphs: bool
    ) -> None:
        self._name = name
        self._open_session = open_session
        self._device = device
        self._host: dict[int, dict[str, Array]] = {}
        self._open(fixed=True, graphs=graphs)
        self._fixed = _is_fixed(self._session.graph)
        if not self._fixed:
            self._session.close()
            self._open(fixed=False, graphs=False)
        self.provider = self._session.provider
        self.graph = self._session.graph

    def room(self, rows: int) -> Mapping[str, Array] | None:
        if not self._fixed:
            return None
        if rows not in self._host:
            host = {spec.name: np.zeros(_shape(spec, rows), DTYPES[spec.datatype]) for spec in self.graph.inputs}
            with _in_use():
                for array in host.values():
                    self._device.lock(array)
            self._host[rows] = host
        return self._host[rows]

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        rows = next((len(array) for array in inputs.values() if array.ndim), 0)
        host = self._host.get(rows)
        if host is None or any(inputs[name] is not array for name, array in host.items()):
            return self._run_unbound(inputs, outputs)
        if self._graphs and rows not in self._captured_here():
            self._capture(rows)
        with _in_use():
            return self._bound_to(rows).run(outputs, rows if self._graphs else NO_GRAPH)

    def close(self) -> None:
        self._bound.clear()
        with _in_use():
            self._session.close()
            for host in self._host.values():
                for array in host.values():
                    self._device.unlock(array)
        self._host.clear()

    def _open(self, *, fixed: bool, graphs: bool) -> None:
        def opened(graphs: bool) -> OnnxRuntimeSession:
            with _in_use():
                return self._open_session(cuda_options(self._device.device_id, fixed=fixed, graphs=graphs))

        self._bound: dict[int, _Bound] = {}
        # ONNX Runtime keeps the graphs of each thread apart.
        self._captured = threading.local()
        self._graphs = graphs
        try:
            self._session = opened(graphs)
        except Exception as error:
            if not graphs:
                raise
            self._graphs = False
            self._session = opened(False)
            log.warning("%s: cannot be launched as a CUDA graph: %s", self._name, error)

    def _run_unbound(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        with _in_use():
            if not self._graphs:
                return self._session.run(inputs, outputs)
            found: list[Array] = self._session.session.run(outputs, inputs, _run_options(NO_GRAPH))
            return found

    def _bound_to(self, rows: int) -> _Bound:
        if rows not in self._bound:
            self._bound[rows] = _Bound(self._session.session, self.graph, self._host[rows], rows, self._device)
        return self._bound[rows]

    def _captured_here(self) -> set[int]:
        """The sizes whose graphs this thread has."""
        captured: set[int] = self._captured.__dict__.setdefault("sizes", set())
        return captured

    def _capture(self, rows: int) -> None:
        """Capture the graph of a size for this thread; or, where that fails, do without graphs from now on."""
        with _in_use():
            # Takes the memory and finds the algorithms, for neither of which there is time in a capture.
            self._bound_to(rows).run((), NO_GRAPH)
        try:
            with _alone():
                self._bound_to(rows).run((), rows)
        except Exception as error:
            log.warning("%s: batch size %s cannot be launched as a CUDA graph, so none is: %s", self._name, rows, error)
            self._bound.clear()
            with _in_use():
                self._session.close()
            self._open(fixed=True, graphs=False)
        else:
            self._captured_here().add(rows)


class _Bound:
    """A binding of one size: what is in `host` runs on the device, which keeps inputs and outputs where they are."""

    def __init__(
        self, session: ort.InferenceSession, graph: Graph, host: Mapping[str, Array], rows: int, device: Host
    ) -> None:
        self._session = session
        self._device = device
        self._binding = session.io_binding()
        self._options: dict[int, ort.RunOptions] = {}
        self._copies: list[tuple[int, int, int]] = []
        self._outputs: dict[str, tuple[TensorSpec, ort.OrtValue]] = {}
        for spec in graph.inputs:
            value = self._value(spec, rows)
            self._binding.bind_ortvalue_input(spec.name, value)
            # The binding keeps the value, the session the host's array.
            self._copies.append((value.data_ptr(), host[spec.name].ctypes.data, host[spec.name].nbytes))
        for spec in graph.outputs:
            value = self._value(spec, rows)
            self._binding.bind_ortvalue_output(spec.name, value)
            self._outputs[spec.name] = spec, value

    def run(self, outputs: Sequence[str], graph_id: int) -> list[Array]:
        for to, source, size_bytes in self._copies:
            self._device.copy(to, source, size_bytes)
        if graph_id not in self._options:
            self._options[graph_id] = _run_options(graph_id)
        self._session.run_with_iobinding(self._binding, self._options[graph_id])
        return [self._fetched(*self._outputs[name]) for name in outputs]

    def _fetched(self, spec: TensorSpec, value: ort.OrtValue) -> Array:
        # The callers keep it, so that it is the one array that is new with each batch.
        array = np.empty(value.shape(), DTYPES[spec.datatype])
        self._device.copy(array.ctypes.data, value.data_ptr(), array.nbytes)
        return array

    def _value(self, spec: TensorSpec, rows: int) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_shape_and_type(
            _shape(spec, rows), DTYPES[spec.datatype].type, self._device.name, self._device.device_id
        )


# While one thread captures, CUDA fails what others of the process ask of it that might take memory: they wait.
_turnstile = threading.Lock()
_change = threading.Condition()
_users = 0


@contextmanager
def _in_use() -> Iterator[None]:
    """CUDA is called, beside others."""
    global _users
    with _turnstile, _change:
        _users += 1
    try:
        yield
    finally:
        with _change:
            _users -= 1
            _change.notify_all()


@contextmanager
def _alone() -> Iterator[None]:
    """CUDA is called, and nobody else calls it."""
    with _turnstile, _change:
        _change.wait_for(lambda: not _users)
        yield


def _is_fixed(graph: Graph) -> bool:
    """Whether every shape is known but for the number of rows."""
    return bool(graph.inputs) and all(
        spec.datatype != "BYTES" and spec.dims and all(size >= 0 for size in spec.dims[1:])
        for spec in (*graph.inputs, *graph.outputs)
    )


def _shape(spec: TensorSpec, rows: int) -> tuple[int, ...]:
    return (rows if spec.dims[0] < 0 else spec.dims[0], *spec.dims[1:])


def _run_options(graph_id: int) -> ort.RunOptions:
    options = ort.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph_id))
    return options
