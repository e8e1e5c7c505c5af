"""ONNX Runtime, in this process: one session and one thread for each instance."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort

from service.batching import BatchOutput
from service.errors import InferenceError, ModelError, StartError
from service.tensors import Array, Graph, Tensors, TensorSpec

CGROUP_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")

DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}

ACCELERATORS = {"tensorrt": "TensorrtExecutionProvider", "openvino": "OpenVINOExecutionProvider"}

Providers = list[tuple[str, dict[str, str]]]
"""What ONNX Runtime is to use, the one asked for first, with the options of each."""


class OnnxRuntimeInstance:
    """A session that runs one batch at a time in its own thread.

    Args:
        path: an ONNX file.
    Raises:
        ModelError: the file is no graph that ONNX Runtime can load.
        StartError: the session fell back to another provider than the one asked for.
    """

    def __init__(self, path: Path, providers: Providers) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # What fails is raised as well.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = ort.InferenceSession(str(path), options, providers)
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot load {path.name}: {error}") from error
        wanted = providers[0][0]
        self.provider: str = self._session.get_providers()[0]
        if self.provider != wanted:
            raise StartError(f"{wanted} was asked for, but ONNX Runtime runs {path} on {self.provider}")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="instance")

    def graph(self) -> Graph:
        """The graph's inputs and outputs.

        Raises:
            ModelError: one is of a type that the protocol has no word for.
        """
        return Graph(
            tuple(_spec(tensor) for tensor in self._session.get_inputs()),
            tuple(_spec(tensor) for tensor in self._session.get_outputs()),
        )

    def bind(
        self,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        batched: bool,
        batch_sizes: Sequence[int] = (),
    ) -> None:
        """Say what items are made of, before the first one is run.

        Args:
            batched: whether the first axis of every tensor is the batch.
            batch_sizes: the sizes the session may see, ascending; a batch is padded to the next one. Empty:
                any. CUDA searches for convolution algorithms at every new size, a CPU does not.
        """
        self._input_names = [spec.name for spec in inputs]
        self._output_names = [spec.name for spec in outputs]
        self._strings = "BYTES" in {spec.datatype for spec in (*inputs, *outputs)}
        self._batched = batched
        self._batch_sizes = batch_sizes

    async def __call__(self, items: Sequence[Tensors]) -> BatchOutput[Tensors]:
        """Join the items along the batch axis, run them, and take the outputs apart again."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.run, items)

    def run(self, items: Sequence[Tensors]) -> BatchOutput[Tensors]:
        start = time.perf_counter()
        if self._batched:
            rows = [len(item[0]) for item in items]
            total = sum(rows)
            padded = next((size for size in self._batch_sizes if size >= total), total)
            batch = [self._join([item[i] for item in items], total, padded) for i in range(len(self._input_names))]
        else:
            (item,) = items
            batch = list(item)
        if self._strings:
            batch = [_decoded(array) for array in batch]
        assembled = time.perf_counter()
        outputs = self._session.run(self._output_names, dict(zip(self._input_names, batch, strict=True)))
        inferred = time.perf_counter()
        if self._strings:
            outputs = [_encoded(array) for array in outputs]
        if self._batched:
            if any(len(output) != padded for output in outputs):
                raise InferenceError(f"the graph gives {[len(output) for output in outputs]} rows for {padded}")
            results, at = [], 0
            for count in rows:
                results.append(tuple(output[at : at + count] for output in outputs))
                at += count
        else:
            results = [tuple(outputs)]
        return BatchOutput(results, assembled - start, inferred - assembled, time.perf_counter() - inferred)

    def close(self) -> None:
        self._thread.shutdown()

    def _join(self, parts: Sequence[Array], total: int, padded: int) -> Array:
        first = parts[0]
        if len(parts) == 1 and padded == total:
            return first
        joined = np.empty((padded, *first.shape[1:]), first.dtype)
        at = 0
        for part in parts:
            joined[at : at + len(part)] = part
            at += len(part)
        joined[total:] = b"" if first.dtype == np.object_ else 0
        return joined


def _spec(tensor: ort.NodeArg) -> TensorSpec:
    if tensor.type not in DATATYPES:
        raise ModelError(f"the graph's '{tensor.name}' is a {tensor.type}, which cannot be sent to or from it")
    dims = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in tensor.shape)
    return TensorSpec(tensor.name, DATATYPES[tensor.type], dims)


def _decoded(array: Array) -> Array:
    """ONNX has strings where the protocol has bytes."""
    if array.dtype != np.object_:
        return array
    flat = [element.decode() if isinstance(element, bytes) else element for element in array.ravel()]
    return np.array(flat, np.object_).reshape(array.shape)


def _encoded(array: Array) -> Array:
    if array.dtype != np.object_:
        return array
    return np.array([str(element).encode() for element in array.ravel()], np.object_).reshape(array.shape)


def require_provider(execution_provider: str) -> None:
    """Make `cpu` or `cuda` ready to be used.

    Raises:
        StartError: this installation of ONNX Runtime does not have it.
    """
    if execution_provider == "cpu":
        return
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    available = ort.get_available_providers()
    if "CUDAExecutionProvider" not in available:
        raise StartError(
            f"FOVEA_EXECUTION_PROVIDER={execution_provider}: this onnxruntime has {', '.join(available)} only; "
            "for CUDA install the extra 'gpu' instead of 'cpu'"
        )


def providers_on(execution_provider: str, device_id: int, accelerators: Sequence[str]) -> Providers:
    """The providers of a session on `cpu` or `cuda`, with the accelerators that its model asks for.

    Raises:
        ModelError: this installation of ONNX Runtime does not have an accelerator.
    """
    available = ort.get_available_providers()
    providers: Providers = []
    for name in accelerators:
        provider = ACCELERATORS.get(name, "")
        if provider not in available:
            raise ModelError(
                f"config.pbtxt: execution accelerator {name!r}: this onnxruntime has {', '.join(available)} only"
            )
        providers.append((provider, {}))
    if execution_provider == "cuda":
        providers.append(("CUDAExecutionProvider", {"device_id": str(device_id)}))
    return [*providers, ("CPUExecutionProvider", {})]


def available_cores() -> int:
    """Cores this process may use: its affinity, or a container's CPU limit where that is lower."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_CPU_LIMIT.read_text().split()
        limit = int(quota) / int(period)
    except (OSError, ValueError):
        return cores
    return max(1, min(cores, round(limit)))
