"""`ModelInfer` calls whose message is known but for its tensor: answered without the message's being parsed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from tritonclient.grpc import service_pb2 as pb

from service.errors import FoveaError
from service.inference import InferenceAnswer, Tensor
from service.known_requests import MAX_FORMS, MAX_WORDS_BYTES, Flight, KnownRequests, Words, form_of
from service.loading import ServedVersion
from service.tensors import Array
from service.trace_context import TraceContext

INFER_METHOD = "inference.GRPCInferenceService/ModelInfer"
RAW_OUTPUT = pb.ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number << 3 | 2
"""What protobuf writes before each of an answer's tensors, which come last."""
OTHERS = bytes(range(255, -1, -1))
"""For each byte another one."""
MAX_OF_ONE_SIZE = 16
"""Beginnings of messages of the same length."""


class KnownInfer:
    """Knows messages with one tensor, which is the end of them: so is every classifier's."""

    def __init__(self, known: KnownRequests) -> None:
        self._known = known
        self._beginnings: dict[int, list[bytes]] = {}
        """By the length of the whole message."""

    def flight(
        self,
        message: bytes,
        identity: str,
        answer: Callable[[bytes], object],
        fail: Callable[[FoveaError], object],
        parent: TraceContext | None = None,
    ) -> Flight | None:
        """The call, where its message is known.

        Args:
            identity, fail, parent: as for a `Flight`.
            answer: takes the answer's message.
        """
        for beginning in self._beginnings.get(len(message), ()):
            if message.startswith(beginning):
                return self._known.flight(
                    beginning,
                    message,
                    len(beginning),
                    identity,
                    lambda words, tensors: answer(b"".join(chain.from_iterable(zip(words, tensors, strict=True)))),
                    fail,
                    parent,
                )
        return None

    def remember(
        self,
        request: pb.ModelInferRequest,
        served: ServedVersion,
        inputs: Mapping[str, Tensor],
        found: InferenceAnswer,
        response: pb.ModelInferResponse,
        *,
        priority: int,
        timeout_us: int,
    ) -> None:
        """Know a call again that was answered, where it is one that can be.

        Args:
            response: to that call.
        """
        if any(tensor.parameters for tensor in (*request.inputs, *request.outputs)):
            return
        beginning = _beginning(request)
        if beginning is None:
            return
        specs = [spec for spec, _ in found.outputs]
        head = pb.ModelInferResponse()
        head.CopyFrom(response)
        del head.raw_output_contents[:]
        del head.outputs[:]

        def word(outputs: Sequence[Array]) -> Words:
            answer = pb.ModelInferResponse()
            answer.CopyFrom(head)
            for spec, output in zip(specs, outputs, strict=True):
                answer.outputs.add(name=spec.name, datatype=spec.datatype, shape=output.shape)
            marks = [bytes([RAW_OUTPUT]) + _varint(output.nbytes) for output in outputs]
            return answer.SerializeToString() + marks[0], *marks[1:]

        form = form_of(
            request.model_name,
            request.model_version,
            served,
            inputs,
            len(request.raw_input_contents[0]),
            [spec.name for spec in specs],
            priority=priority,
            timeout_us=timeout_us,
            word=word,
        )
        if form:
            self._known.remember(beginning, form)
            self._add(beginning, len(beginning) + form.size_bytes)

    def _add(self, beginning: bytes, size_bytes: int) -> None:
        if beginning in self._beginnings.get(size_bytes, ()):
            return
        if sum(map(len, self._beginnings.values())) >= MAX_FORMS:
            self._beginnings.clear()
        of_this_size = self._beginnings.setdefault(size_bytes, [])
        if len(of_this_size) == MAX_OF_ONE_SIZE:
            of_this_size.clear()
        of_this_size.append(beginning)


def _beginning(request: pb.ModelInferRequest) -> bytes | None:
    """A message without its one tensor; None where that is not the end of it."""
    if len(request.raw_input_contents) != 1 or request.id:
        return None
    (tensor,) = request.raw_input_contents
    message = request.SerializeToString()
    beginning = message[: len(message) - len(tensor)]
    if not tensor or len(beginning) > MAX_WORDS_BYTES or not message.endswith(tensor):
        return None
    # Whatever follows it is the tensor: so it is with one that is another in every byte.
    other = tensor.translate(OTHERS)
    try:
        read = pb.ModelInferRequest.FromString(beginning + other)
    except ValueError:
        return None
    return beginning if list(read.raw_input_contents) == [other] else None


def _varint(number: int) -> bytes:
    """As protobuf writes it."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)
