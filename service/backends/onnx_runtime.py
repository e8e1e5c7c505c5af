"""ONNX Runtime, in this process: one session for each instance."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tritonclient.grpc import model_config_pb2 as pb

from service.backends.cuda_session import CudaOptions, CudaSession
from service.backends.device import Cuda
from service.backends.engine import Session
from service.backends.idle_cores import IdleCores, is_worth_it
from service.errors import ModelError, StartError
from service.tensors import Array, Graph, TensorSpec

Kind = pb.ModelInstanceGroup.Kind

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

MAX_INSTANCES = 256
"""Of a model version: each is a session with a copy of the weights."""

ROWS_AT_ONCE = 16
"""On a CPU, where a row takes as long in a batch of 16 as in one of 64, and its activations a quarter of the memory."""
MAX_SHARED_BYTES = 256 * 2**20
"""Of a model that has one copy of its weights more, for its sessions to share cores."""

GPU_INSTANCES = 2
"""Of a version, on a GPU: the copies of one, and what Python does for it, go beside the other's arithmetic."""

Providers = list[tuple[str, dict[str, str]]]
"""What ONNX Runtime is to use, the one asked for first, with the options of each."""
CPU: Providers = [("CPUExecutionProvider", {})]
CUDA = "CUDAExecutionProvider"


class OnnxRuntimeSession:
    """A session with one thread for its arithmetic.

    Attributes:
        session: ONNX Runtime's.
        idle_cores: what it shares with the other sessions of its version, where they lend each other their cores.

    Args:
        path: an ONNX file.

    Raises:
        ModelError: the file is no graph that ONNX Runtime can load, or has tensors that the protocol has no word for.
        StartError: the provider that was asked for does not run it.
    """

    def __init__(self, path: Path, providers: Providers) -> None:
        self.session = _session(path, providers, threads=1)
        self.idle_cores: IdleCores | None = None
        wanted = providers[0][0]
        self.provider: str = self.session.get_providers()[0]
        if self.provider != wanted:
            raise StartError(f"{wanted} was asked for, but ONNX Runtime runs {path} on {self.provider}")
        # CUDA searches for convolution algorithms at every new size, a CPU does not.
        on_cpu = self.provider == CPU[0][0]
        self.slow_at_new_sizes = not on_cpu
        self.rows_at_once = ROWS_AT_ONCE if on_cpu else None
        self.graph = Graph(
            tuple(_spec(tensor) for tensor in self.session.get_inputs()),
            tuple(_spec(tensor) for tensor in self.session.get_outputs()),
        )
        self._strings = "BYTES" in {spec.datatype for spec in (*self.graph.inputs, *self.graph.outputs)}

    def room(self, rows: int) -> None:
        return None

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        if self.idle_cores:
            return self.idle_cores.run(self.session.run, outputs, inputs)
        if not self._strings:
            found: list[Array] = self.session.run(outputs, inputs)
            return found
        decoded = {name: _decoded(array) for name, array in inputs.items()}
        return [_encoded(array) for array in self.session.run(outputs, decoded)]

    def share_idle_cores(self, path: Path, others: Sequence[OnnxRuntimeSession]) -> None:
        """Have this session and others of the same graph, on this CPU, lend each other their cores where that helps."""
        if self._strings:
            return
        wide = _session(path, CPU, threads=available_cores())
        if is_worth_it(wide.run, self.session.run, self.graph.inputs):
            self.idle_cores = IdleCores(wide.run)
            for other in others:
                other.idle_cores = self.idle_cores

    def close(self) -> None:
        self.idle_cores = None
        # Gone already where another was to take its place, and could not be opened.
        vars(self).pop("session", None)


class OnnxRuntimeEngine:
    """ONNX Runtime in this process.

    Args:
        execution_provider: "cpu" or "cuda".

    Raises:
        StartError: this installation of ONNX Runtime does not have the execution provider.
    """

    def __init__(self, execution_provider: str, *, device_id: int) -> None:
        _require_provider(execution_provider)
        self._on_gpu = execution_provider == "cuda"
        self._device_id = device_id

    def open(self, folder: Path, version: str, config: pb.ModelConfig) -> list[Session]:
        path = folder / version / config.default_model_filename
        graphs = config.optimization.cuda.graphs
        sessions = [_opened(config.name, path, providers, graphs=graphs) for providers in self._placements(config)]
        on_cpu = [each for each in sessions if isinstance(each, OnnxRuntimeSession) and each.provider == CPU[0][0]]
        if on_cpu and available_cores() > 1 and path.stat().st_size <= MAX_SHARED_BYTES:
            on_cpu[0].share_idle_cores(path, on_cpu[1:])
        return sessions

    def refresh(self) -> None:
        """Nothing: what it has does not change."""

    def lacks(self, model: str, version: str) -> str:
        return ""

    def close(self) -> None:
        """Nothing: sessions hold all that there is."""

    def _placements(self, config: pb.ModelConfig) -> list[Providers]:
        """Where each instance runs; the config's instance groups are completed on the way."""
        accelerators = config.optimization.execution_accelerators
        if not config.instance_group:
            config.instance_group.add(name=config.name, count=GPU_INSTANCES if self._on_gpu else available_cores())
        count = sum(max(1, group.count) * max(1, len(group.gpus)) for group in config.instance_group)
        if count > MAX_INSTANCES:
            raise ModelError(f"config.pbtxt: instance_group has {count} instances: must be at most {MAX_INSTANCES}")
        placements: list[Providers] = []
        for number, group in enumerate(config.instance_group):
            if group.kind == Kind.Value("KIND_AUTO"):
                group.kind = Kind.Value("KIND_GPU" if self._on_gpu else "KIND_CPU")
            if group.kind == Kind.Value("KIND_MODEL"):
                raise ModelError(
                    "config.pbtxt: instance_group kind KIND_MODEL: must be KIND_AUTO, KIND_CPU or KIND_GPU"
                )
            group.name = group.name or f"{config.name}_{number}"
            group.count = max(1, group.count)
            if group.kind == Kind.Value("KIND_CPU"):
                if group.gpus:
                    raise ModelError("config.pbtxt: instance_group kind KIND_CPU names gpus")
                names = [accelerator.name for accelerator in accelerators.cpu_execution_accelerator]
                placements += [_providers_on("cpu", 0, names)] * group.count
            elif not self._on_gpu:
                raise ModelError(
                    "config.pbtxt: instance_group kind KIND_GPU, but FOVEA_EXECUTION_PROVIDER is cpu: "
                    "must be KIND_CPU or KIND_AUTO, or the service run with cuda"
                )
            else:
                if not group.gpus:
                    group.gpus.append(self._device_id)
                names = [accelerator.name for accelerator in accelerators.gpu_execution_accelerator]
                for gpu in group.gpus:
                    placements += [_providers_on("cuda", gpu, names)] * group.count
        return placements


def _opened(name: str, path: Path, providers: Providers, *, graphs: bool) -> Session:
    """A session of an instance. On a GPU its provider's options are those of `cuda_options`."""
    (first, device), *others = providers
    if first != CUDA:
        return OnnxRuntimeSession(path, providers)

    def open_session(options: CudaOptions) -> OnnxRuntimeSession:
        return OnnxRuntimeSession(path, [(CUDA, dict(options)), *others])

    return CudaSession(name, open_session, Cuda(int(device["device_id"])), graphs=graphs)


def _session(path: Path, providers: Providers, *, threads: int) -> ort.InferenceSession:
    """Raises:
    ModelError: the file is no graph that ONNX Runtime can load.
    StartError: an execution provider cannot be had.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # What fails is raised as well.
    # A pattern for each batch size would keep its own memory, and brings no speed.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        # Left to itself it would go on without the provider that fails, now or at any later batch.
        return ort.InferenceSession(str(path), options, providers, enable_fallback=0)
    except Exception as error:
        # What a provider says, rather than the reader of the graph.
        if isinstance(error, RuntimeError) and providers != CPU:
            raise StartError(f"{providers[0][0]} was asked for, but cannot run {path}: {error}") from error
        raise ModelError(f"ONNX Runtime cannot load {path.name}: {error}") from error


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


def _require_provider(execution_provider: str) -> None:
    """Make `cpu` or `cuda` ready to be used.

    Raises:
        StartError: this installation of ONNX Runtime does not have it.
    """
    if execution_provider == "cpu":
        return
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    available = ort.get_available_providers()
    if CUDA not in available:
        raise StartError(
            f"FOVEA_EXECUTION_PROVIDER={execution_provider}: this onnxruntime has {', '.join(available)} only; "
            "for CUDA install the extra 'gpu' instead of 'cpu'"
        )


def _providers_on(execution_provider: str, device_id: int, accelerators: Sequence[str]) -> Providers:
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
        providers.append((CUDA, {"device_id": str(device_id)}))
    return [*providers, *CPU]


def available_cores() -> int:
    """Cores this process may use: its affinity, or a container's CPU limit where that is lower."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_CPU_LIMIT.read_text().split()
        limit = int(quota) / int(period)
    except (OSError, ValueError):
        return cores
    return max(1, min(cores, round(limit)))
