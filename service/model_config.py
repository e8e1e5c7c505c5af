"""A model's `config.pbtxt`, read as Triton reads it and completed from the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from google.protobuf import json_format, text_format
from google.protobuf.message import Message
from tritonclient.grpc import model_config_pb2 as pb

from service.errors import ModelError
from service.tensors import Graph, TensorSpec

BACKEND = "onnxruntime"
PLATFORM = "onnxruntime_onnx"
GRAPH_FILE = "model.onnx"
MAX_PRIORITY_LEVELS = 100
COMPLETED_MAX_BATCH_SIZE = 4
"""For a graph with a batch axis and no word about it in the config: Triton's own default."""

REFUSED = (
    "batch_input",
    "batch_output",
    "cc_model_filenames",
    "ensemble_scheduling",
    "input.allow_ragged_batch",
    "input.is_non_linear_format_io",
    "input.is_shape_tensor",
    "input.optional",
    "input.reshape",
    "instance_group.passive",
    "model_operations",
    "model_repository_agents",
    "model_transaction_policy.decoupled",
    "output.is_non_linear_format_io",
    "output.is_shape_tensor",
    "output.reshape",
    "sequence_batching",
)
"""Fields that would change the answers, and that this service does not have: a model that sets one is not served."""

WITHOUT_EFFECT = (
    "instance_group.host_policy",
    "instance_group.profile",
    "instance_group.rate_limiter",
    "instance_group.secondary_devices",
    "dynamic_batching.preferred_batch_size",
    "dynamic_batching.preserve_ordering",
    "metric_tags",
    "model_metrics",
    "model_warmup",
    "optimization.cuda.busy_wait_events",
    "optimization.cuda.graph_spec",
    "optimization.cuda.output_copy_stream",
    "optimization.eager_batching",
    "optimization.execution_accelerators.cpu_execution_accelerator.parameters",
    "optimization.execution_accelerators.gpu_execution_accelerator.parameters",
    "optimization.gather_kernel_buffer_threshold",
    "optimization.graph",
    "optimization.input_pinned_memory",
    "optimization.output_pinned_memory",
    "optimization.priority",
    "response_cache",
    "runtime",
)
"""Fields that are read, said in the log, and have no effect here."""


@dataclass(frozen=True)
class QueueTimeout:
    """Of a queue policy: the longest time in the queue in microseconds, 0 for any."""

    default_us: int
    may_be_shortened: bool

    @classmethod
    def of(cls, policy: pb.ModelQueuePolicy) -> QueueTimeout:
        # What is to be delayed rather than rejected stays where it is.
        rejects = policy.timeout_action == pb.ModelQueuePolicy.REJECT
        return cls(policy.default_timeout_microseconds * rejects, policy.allow_timeout_override and rejects)


@dataclass(frozen=True)
class ModelConfig:
    """A model's configuration, complete.

    Attributes:
        proto: as Triton would report it.
        inputs, outputs: without the batch axis, where there is one.
        labels: of those outputs that have some.
        max_batch_size: rows in a batch; 0: the model has no batch axis.
    """

    proto: pb.ModelConfig
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    labels: Mapping[str, tuple[str, ...]]

    # Cached: asked for with every request, and slow to read from a protobuf message.

    @cached_property
    def name(self) -> str:
        return str(self.proto.name)

    @cached_property
    def max_batch_size(self) -> int:
        return int(self.proto.max_batch_size)

    @cached_property
    def batches_requests(self) -> bool:
        """Whether requests may share a batch."""
        return self.max_batch_size > 1 and self.proto.HasField("dynamic_batching")

    @cached_property
    def open_dims(self) -> bool:
        """Whether rows may differ in shape."""
        return any(-1 in spec.dims for spec in self.inputs)

    @cached_property
    def max_queue_delay_s(self) -> float:
        return float(self.proto.dynamic_batching.max_queue_delay_microseconds) / 1e6

    @cached_property
    def max_queue_size(self) -> int:
        """Rows that may wait; 0: the config does not say."""
        return int(self.proto.dynamic_batching.default_queue_policy.max_queue_size)

    @cached_property
    def priority_levels(self) -> int:
        return max(1, int(self.proto.dynamic_batching.priority_levels))

    @cached_property
    def default_priority(self) -> int:
        return int(self.proto.dynamic_batching.default_priority_level) or 1

    @cached_property
    def _timeouts(self) -> list[QueueTimeout]:
        """Of each priority level, from 1."""
        batching = self.proto.dynamic_batching
        return [
            QueueTimeout.of(batching.priority_queue_policy.get(level, batching.default_queue_policy))
            for level in range(1, self.priority_levels + 1)
        ]

    def queue_timeout_s(self, priority: int, timeout_us: int) -> float | None:
        """Longest time in the queue for a request that itself asks for `timeout_us` (0: it does not); None: any."""
        timeout = self._timeouts[priority - 1]
        allowed_us = timeout.default_us
        if timeout.may_be_shortened and timeout_us and (not allowed_us or timeout_us < allowed_us):
            allowed_us = timeout_us
        return allowed_us / 1e6 if allowed_us else None

    def without_effect(self) -> list[str]:
        """The fields set that have no effect here."""
        return [field for field in WITHOUT_EFFECT if _is_set(self.proto, field)]


def read_proto(folder: Path, override: str | None = None) -> pb.ModelConfig:
    """Read `<folder>/config.pbtxt`; an empty message where there is none.

    Args:
        override: a whole configuration as JSON, which takes the file's place.

    Raises:
        ModelError: it cannot be read, or asks for what this service does not have.
    """
    proto = pb.ModelConfig()
    path = folder / "config.pbtxt"
    try:
        if override is not None:
            json_format.Parse(override, proto)
        elif path.is_file():
            text_format.Parse(path.read_text(), proto)
    except (text_format.ParseError, json_format.ParseError, UnicodeDecodeError, OSError) as error:
        where = "config override" if override is not None else "config.pbtxt"
        raise ModelError(f"{where}: {error}") from error
    for name, number in _unknown_values(proto):
        raise ModelError(f"config.pbtxt: {name} is {number}, which stands for nothing")
    if proto.name and proto.name != folder.name:
        raise ModelError(f"config.pbtxt: name {proto.name!r} must equal the folder's, {folder.name!r}")
    if (proto.backend or proto.platform.removesuffix("_onnx") or BACKEND) != BACKEND:
        raise ModelError(f'config.pbtxt: backend {proto.backend or proto.platform!r}: must be "{BACKEND}"')
    for field in REFUSED:
        if _is_set(proto, field):
            raise ModelError(f"config.pbtxt: {field} is set, which this service does not have")
    if proto.max_batch_size < 0:
        raise ModelError(f"config.pbtxt: max_batch_size is {proto.max_batch_size}: must not be negative")
    batching = proto.dynamic_batching
    levels, default = batching.priority_levels, batching.default_priority_level
    if levels > MAX_PRIORITY_LEVELS:
        raise ModelError(f"config.pbtxt: priority_levels is {levels}: must be at most {MAX_PRIORITY_LEVELS}")
    if not min(1, levels) <= default <= levels:
        raise ModelError(f"config.pbtxt: default_priority_level is {default}: must be one of priority_levels, {levels}")
    for level in batching.priority_queue_policy:
        if levels and not 1 <= level <= levels:
            raise ModelError(f"config.pbtxt: priority_queue_policy {level}: must be one of priority_levels, {levels}")
    filename = proto.default_model_filename or GRAPH_FILE
    if Path(filename).name != filename or "\0" in filename:
        raise ModelError(f"config.pbtxt: default_model_filename {filename!r} must be a file's name alone")
    proto.name = folder.name
    proto.backend, proto.platform = BACKEND, PLATFORM
    proto.default_model_filename = filename
    if not proto.HasField("version_policy"):
        proto.version_policy.latest.num_versions = 1
    return proto


def served_versions(proto: pb.ModelConfig, versions: Sequence[int]) -> list[int]:
    """Which of a model's versions its policy serves: the latest one, where it says nothing.

    Raises:
        ModelError: it names one that is not there.
    """
    policy = proto.version_policy
    if policy.HasField("all"):
        return sorted(versions)
    if policy.HasField("specific"):
        missing = set(policy.specific.versions) - set(versions)
        if missing:
            raise ModelError(f"version_policy names version {min(missing)}, which has no folder")
        return sorted(policy.specific.versions)
    return sorted(versions)[-(policy.latest.num_versions or 1) :]


def complete(proto: pb.ModelConfig, graph: Graph, folder: Path) -> ModelConfig:
    """Fill in from the graph what the config leaves open, and hold the rest against the graph.

    Raises:
        ModelError: they contradict each other, or the labels are not there.
    """
    completed = pb.ModelConfig()
    completed.CopyFrom(proto)
    if not proto.input and not proto.output and _has_batch_axis(graph):
        completed.max_batch_size = proto.max_batch_size or COMPLETED_MAX_BATCH_SIZE
        if completed.max_batch_size > 1 and not proto.HasField("dynamic_batching"):
            completed.dynamic_batching.SetInParent()
    batched = completed.max_batch_size > 0
    inputs = _tensors(completed, "input", graph.inputs, batched)
    outputs = _tensors(completed, "output", graph.outputs, batched)
    missing = {spec.name for spec in graph.inputs} - {spec.name for spec in inputs}
    if missing:
        raise ModelError(f"config.pbtxt: the graph's input '{min(missing)}' is not in it")
    labels = {
        output.name: _labels(folder, output.label_filename) for output in completed.output if output.label_filename
    }
    return ModelConfig(completed, inputs, outputs, labels)


def _has_batch_axis(graph: Graph) -> bool:
    return all(spec.dims and spec.dims[0] == -1 for spec in (*graph.inputs, *graph.outputs))


def _tensors(proto: pb.ModelConfig, kind: str, of_graph: Sequence[TensorSpec], batched: bool) -> tuple[TensorSpec, ...]:
    """The config's inputs or outputs, all of the graph's where it names none."""
    given = proto.input if kind == "input" else proto.output
    if not given:
        for spec in of_graph:
            if batched and spec.dims[:1] != (-1,):
                raise ModelError(
                    f"config.pbtxt: max_batch_size is {proto.max_batch_size}, but the graph's {kind} '{spec.name}' "
                    "has no open first axis: must be 0"
                )
            given.add(
                name=spec.name,
                data_type=pb.DataType.Value("TYPE_" + _word(spec.datatype)),
                dims=spec.dims[1:] if batched else spec.dims,
            )
    by_name = {spec.name: spec for spec in of_graph}
    found = []
    for tensor in given:
        if tensor.name not in by_name:
            raise ModelError(
                f"config.pbtxt: {kind} '{tensor.name}' is not in the graph, which has {', '.join(by_name) or 'none'}"
            )
        spec = by_name[tensor.name]
        if pb.DataType.Name(tensor.data_type) != "TYPE_" + _word(spec.datatype):
            raise ModelError(
                f"config.pbtxt: {kind} '{tensor.name}' is {pb.DataType.Name(tensor.data_type)}; "
                f"in the graph it is TYPE_{_word(spec.datatype)}"
            )
        dims = tuple(tensor.dims)
        of_row = spec.dims[1:] if batched else spec.dims
        if len(dims) != len(of_row) or any(-1 not in (a, b) and a != b for a, b in zip(dims, of_row, strict=True)):
            raise ModelError(
                f"config.pbtxt: {kind} '{tensor.name}' has dims {list(dims)}{' and the batch axis' * batched}; "
                f"in the graph they are {list(spec.dims)}"
            )
        if batched and spec.dims[0] not in (-1, proto.max_batch_size):
            raise ModelError(
                f"config.pbtxt: max_batch_size is {proto.max_batch_size}, but the graph takes batches of "
                f"{spec.dims[0]} only"
            )
        found.append(TensorSpec(tensor.name, spec.datatype, tuple(tensor.dims)))
    return tuple(found)


def _word(datatype: str) -> str:
    return "STRING" if datatype == "BYTES" else datatype


def _labels(folder: Path, filename: str) -> tuple[str, ...]:
    path = folder / filename
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ModelError(f"config.pbtxt: label_filename {filename!r} must lie in the model's folder")
        return tuple(path.read_text(encoding="utf-8").rstrip("\n").split("\n"))
    except (OSError, ValueError) as error:  # as a name that has a NUL, text that is no UTF-8
        raise ModelError(f"{filename}: {error}") from error


def _unknown_values(message: Message) -> Iterator[tuple[str, int]]:
    """Fields whose number is none of their enumeration's: a message takes those all the same."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        if field.enum_type is not None:
            yield from ((field.name, each) for each in values if each not in field.enum_type.values_by_number)
        elif field.message_type is not None:
            of_map = field.message_type.GetOptions().map_entry
            for inner in value.values() if of_map else values:
                if isinstance(inner, Message):
                    yield from _unknown_values(inner)


def _is_set(proto: pb.ModelConfig, field: str) -> bool:
    """Whether a field, named from the top by dots, is there in any of the messages that could have it."""
    messages: list[Message] = [proto]
    *path, last = field.split(".")
    for name in path:
        messages = [inner for message in messages for inner in _inner(message, name)]
    return any(last in {found.name for found, _ in message.ListFields()} for message in messages)


def _inner(message: Message, name: str) -> Iterator[Message]:
    for field, value in message.ListFields():
        if field.name == name:
            yield from [value] if isinstance(value, Message) else value
