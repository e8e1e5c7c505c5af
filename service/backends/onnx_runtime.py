"""ONNX Runtime, in this process: one session and one thread for each instance."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from service.batching import BatchOutput
from service.errors import ModelError, StartError

Array = npt.NDArray[np.generic]

CGROUP_CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")


class OnnxRuntimeInstance:
    """A session that runs one batch at a time in its own thread.

    Args:
        path: an ONNX file with one input, whose first axis is the batch.
        output_name: the output that is wanted, of those the file has.
        provider: "CPUExecutionProvider" or "CUDAExecutionProvider".
        batch_sizes: the sizes the session may see, ascending; a batch is padded to the next one. Empty:
            any. CUDA searches for convolution algorithms at every new size, a CPU does not.

    Raises:
        ModelError: the file is no graph that ONNX Runtime can load.
        StartError: the session fell back to another provider than the one asked for.
    """

    def __init__(
        self, path: Path, output_name: str, provider: str, device_id: int, batch_sizes: Sequence[int] = ()
    ) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        provider_options = [{"device_id": str(device_id)}] if provider == "CUDAExecutionProvider" else [{}]
        try:
            self._session = ort.InferenceSession(str(path), options, [provider], provider_options)
        except Exception as error:
            raise ModelError(f"ONNX Runtime cannot load {path.name}: {error}") from error
        self.provider: str = self._session.get_providers()[0]
        if self.provider != provider:
            raise StartError(f"{provider} was asked for, but ONNX Runtime runs {path} on {self.provider}")
        self.inputs = {i.name: i for i in self._session.get_inputs()}
        self.outputs = {o.name: o for o in self._session.get_outputs()}
        self._input_name = self._session.get_inputs()[0].name
        self._output_names = [output_name]
        self._batch_sizes = batch_sizes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="instance")

    async def __call__(self, items: Sequence[Array]) -> BatchOutput[Array]:
        """Stack the items, each without the batch axis, run them, and take the output apart again."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.run, items)

    def run(self, items: Sequence[Array]) -> BatchOutput[Array]:
        start = time.perf_counter()
        padded = next((size for size in self._batch_sizes if size >= len(items)), len(items))
        batch = np.empty((padded, *items[0].shape), items[0].dtype)
        for row, item in enumerate(items):
            batch[row] = item
        batch[len(items) :] = 0
        assembled = time.perf_counter()
        (output,) = self._session.run(self._output_names, {self._input_name: batch})
        return BatchOutput(output[: len(items)], assembled - start, time.perf_counter() - assembled)

    def close(self) -> None:
        self._thread.shutdown()


def require_provider(name: str) -> str:
    """The ONNX Runtime provider for `cpu` or `cuda`.

    Raises:
        StartError: this installation of ONNX Runtime does not have it.
    """
    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[name]
    if name == "cuda" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    available = ort.get_available_providers()
    if provider not in available:
        raise StartError(
            f"FOVEA_EXECUTION_PROVIDER={name}: this onnxruntime has {', '.join(available)} only; "
            "for CUDA install the extra 'gpu' instead of 'cpu'"
        )
    return provider


def available_cores() -> int:
    """Cores this process may use: its affinity, or a container's CPU limit where that is lower."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_CPU_LIMIT.read_text().split()
        limit = int(quota) / int(period)
    except (OSError, ValueError):
        return cores
    return max(1, min(cores, round(limit)))
