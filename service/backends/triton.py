"""A Triton server as the engine: batches go to it by gRPC, or by memory of the same host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from math import prod
from pathlib import Path

import grpc
import numpy as np
from tritonclient.grpc import model_config_pb2 as pb
from tritonclient.grpc import service_pb2, service_pb2_grpc

from service.backends.engine import Session
from service.backends.triton_memory import TritonMemory
from service.errors import DeadlineExceededError, FoveaError, InferenceError, ModelError, UnavailableError
from service.tensors import DTYPES, Array, Graph, TensorSpec, from_raw, to_raw
from service.trace_context import trace_context

CHECK_TIMEOUT_S = 2.0
"""How soon Triton must answer what asks for no inference."""
NO_LIMIT = -1
ALIGNMENT = 64


class TritonEngine:
    """Runs what a Triton server has loaded from the same model repository.

    Args:
        address: of its gRPC, host and port.
        shared_memory: whether tensors travel in system shared memory, which takes a Triton on the same host.
        timeout_s: longest time for one batch.
        on_disturbance: called from another thread, when a refresh is due.
    """

    def __init__(
        self, address: str, *, shared_memory: bool, timeout_s: float, on_disturbance: Callable[[], None]
    ) -> None:
        self._address = address
        self.shared_memory = shared_memory
        self.timeout_s = timeout_s
        self._on_disturbance = on_disturbance
        self._channel = grpc.insecure_channel(
            address,
            options=[
                ("grpc.max_receive_message_length", NO_LIMIT),
                ("grpc.max_send_message_length", NO_LIMIT),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._problem = f"Triton at {address} has not been asked yet"
        self._states: dict[tuple[str, str], str] = {}
        self._connected = False
        self._interrupted = False
        self._channel.subscribe(self._on_connectivity, try_to_connect=True)

    def refresh(self) -> None:
        if self._interrupted:
            # Whoever answers now may be another server: what was proven on the old one must be proven again.
            self._interrupted = False
            self._problem = f"the connection to Triton at {self._address} was lost"
            self._on_disturbance()
            return
        try:
            index = self._stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), timeout=CHECK_TIMEOUT_S)
        except grpc.RpcError as error:
            self._problem = self._said(error)
            return
        self._states = {(model.name, model.version): f"{model.state} {model.reason}".strip() for model in index.models}
        self._problem = ""

    def lacks(self, model: str, version: str) -> str:
        if self._problem:
            return self._problem
        state = self._states.get((model, version), "not loaded")
        return "" if state == "READY" else f"Triton at {self._address}: {state}"

    def open(self, folder: Path, version: str, config: pb.ModelConfig) -> list[Session]:
        if reason := self.lacks(config.name, version):
            raise ModelError(reason)
        which = {"name": config.name, "version": version}
        try:
            metadata = self._stub.ModelMetadata(service_pb2.ModelMetadataRequest(**which), timeout=CHECK_TIMEOUT_S)
            theirs = self._stub.ModelConfig(service_pb2.ModelConfigRequest(**which), timeout=CHECK_TIMEOUT_S).config
        except grpc.RpcError as error:
            raise ModelError(self._said(error)) from None
        graph = Graph(_specs(metadata.inputs), _specs(metadata.outputs))
        instances = sum(group.count * max(1, len(group.gpus)) for group in theirs.instance_group)
        # One more than it has instances, so that the next batch is there when one of them is done.
        return [TritonSession(self, self._stub, theirs, version, graph) for _ in range(instances + 1)]

    def failure(self, error: grpc.RpcError) -> FoveaError:
        """What a failed inference is to its callers."""
        match error.code():
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                self._on_disturbance()
                return DeadlineExceededError(f"Triton at {self._address} did not answer within {self.timeout_s:g} s")
            # Not found is what a server says that has just been started again.
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.NOT_FOUND | grpc.StatusCode.CANCELLED:
                self._on_disturbance()
                return UnavailableError(self._said(error))
            case _:
                return InferenceError(self._said(error))

    def close(self) -> None:
        self._channel.close()

    def _on_connectivity(self, connectivity: grpc.ChannelConnectivity) -> None:
        connected = connectivity is grpc.ChannelConnectivity.READY
        if self._connected and not connected:
            self._interrupted = True
        if connected != self._connected:
            self._connected = connected
            self._on_disturbance()

    def _said(self, error: grpc.RpcError) -> str:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"Triton at {self._address} does not answer within {CHECK_TIMEOUT_S:g} s"
        if error.code() is grpc.StatusCode.UNAVAILABLE and not self._connected:
            return f"Triton at {self._address} cannot be reached"
        return f"Triton at {self._address}: {error.details()}"


class TritonSession:
    """One batch at a time on its way to Triton and back."""

    provider = "Triton"
    slow_at_new_sizes = False
    rows_at_once: int | None = None

    def __init__(
        self,
        engine: TritonEngine,
        stub: service_pb2_grpc.GRPCInferenceServiceStub,
        config: pb.ModelConfig,
        version: str,
        graph: Graph,
    ) -> None:
        self.graph = graph
        self._engine = engine
        self._stub = stub
        self._model = config.name
        self._batched = config.max_batch_size > 0
        self._version = version
        self._datatypes = {spec.name: spec.datatype for spec in graph.inputs}
        self._memory = TritonMemory(stub) if engine.shared_memory else None

    def room(self, rows: int) -> None:
        return None

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        request = service_pb2.ModelInferRequest(model_name=self._model, model_version=self._version)
        for name, array in inputs.items():
            request.inputs.add(name=name, datatype=self._datatypes[name], shape=array.shape)
        for name in outputs:
            request.outputs.add(name=name)
        try:
            if self._memory is None:
                request.raw_input_contents.extend(map(to_raw, inputs.values()))
                return self._answer(request, {})
            try:
                return self._run_shared(self._memory, request, inputs)
            except grpc.RpcError as error:
                self._memory.release()
                # What a server says that was started again, and so knows nothing of the region.
                if "shared memory" not in (error.details() or ""):
                    raise
            return self._run_shared(self._memory, request, inputs)
        except grpc.RpcError as error:
            raise self._engine.failure(error) from None

    def close(self) -> None:
        if self._memory:
            self._memory.release()

    def _run_shared(
        self, memory: TritonMemory, request: service_pb2.ModelInferRequest, inputs: Mapping[str, Array]
    ) -> list[Array]:
        """Put the inputs in the region, and have those outputs put there whose size is known beforehand."""
        contents = [to_raw(array) if array.dtype == np.object_ else array for array in inputs.values()]
        sizes = [len(content) if isinstance(content, bytes) else content.nbytes for content in contents]
        rows = len(next(iter(inputs.values())))
        shared = [output for output in request.outputs if self._output_bytes(output.name, rows)]
        sizes += [self._output_bytes(output.name, rows) for output in shared]
        offsets = list(accumulate((-(-size // ALIGNMENT) * ALIGNMENT for size in sizes), initial=0))
        memory.reserve(offsets.pop())
        for tensor, offset, size in zip((*request.inputs, *shared), offsets, sizes, strict=True):
            tensor.parameters["shared_memory_region"].string_param = memory.name
            tensor.parameters["shared_memory_offset"].int64_param = offset
            tensor.parameters["shared_memory_byte_size"].int64_param = size
        for content, offset in zip(contents, offsets, strict=False):
            memory.write(offset, content)
        return self._answer(
            request, dict(zip((output.name for output in shared), offsets[len(contents) :], strict=True))
        )

    def _answer(self, request: service_pb2.ModelInferRequest, offsets: Mapping[str, int]) -> list[Array]:
        """Have the request inferred; the outputs in the order of the request.

        Args:
            offsets: in the region, of the outputs that are put there.
        """
        try:
            response = self._stub.ModelInfer(request, timeout=self._engine.timeout_s, metadata=_metadata())
        except ValueError as error:  # The channel is closed.
            raise UnavailableError(f"the service is stopping: {error}") from None
        # One for each output, empty where it is in the region.
        contents = dict(zip((tensor.name for tensor in response.outputs), response.raw_output_contents, strict=True))
        tensors = {tensor.name: tensor for tensor in response.outputs}
        found = []
        for output in request.outputs:
            tensor = tensors[output.name]
            shape = tuple(tensor.shape)
            if self._memory and output.name in offsets:
                found.append(self._memory.read(offsets[output.name], tensor.datatype, shape))
            else:
                found.append(from_raw(output.name, tensor.datatype, shape, contents[output.name]))
        return found

    def _output_bytes(self, name: str, rows: int) -> int:
        """How many bytes an output takes for so many rows; 0 where that is not known beforehand."""
        spec = next(spec for spec in self.graph.outputs if spec.name == name)
        dims = (rows, *spec.dims[1:]) if self._batched else spec.dims
        if spec.datatype == "BYTES" or -1 in dims:
            return 0
        return prod(dims) * DTYPES[spec.datatype].itemsize


def _metadata() -> tuple[tuple[str, str], ...] | None:
    """The trace that the batch is part of."""
    context = trace_context.get()
    return context.headers() if context else None


def _specs(tensors: Iterable[service_pb2.ModelMetadataResponse.TensorMetadata]) -> tuple[TensorSpec, ...]:
    specs = tuple(TensorSpec(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in tensors)
    for spec in specs:
        if spec.datatype not in DTYPES:
            raise ModelError(f"the graph's '{spec.name}' is {spec.datatype}, which cannot be sent to or from it")
    return specs
