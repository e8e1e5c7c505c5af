"""`ModelInfer`'s messages and the tensors in them, where and how they are sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tritonclient.grpc import service_pb2 as pb

from service.class_strings import class_strings
from service.errors import InvalidInputError
from service.inference import InferenceAnswer, Tensor, check_input
from service.shared_memory import Place, SharedMemory
from service.tensors import Array, element_count, from_raw, from_values, to_raw

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""The field of `InferTensorContents` for each datatype; FP16 travels raw only."""


def inputs_of(request: pb.ModelInferRequest, memory: SharedMemory) -> Mapping[str, Tensor]:
    """The input tensors by name; views of the message's own bytes.

    Raises:
        InvalidInputError: one is there twice, or has no data, or not the data that it says.
    """
    raw = request.raw_input_contents
    if len(raw) > len(request.inputs):
        raise InvalidInputError(f"{len(raw)} raw_input_contents for {len(request.inputs)} inputs")
    inputs: dict[str, Tensor] = {}
    waiting = iter(raw)
    for tensor in request.inputs:
        check_input(tensor.name, tensor.datatype, inputs)
        if place := _place(tensor.parameters, tensor.name):
            array = from_raw(tensor.name, tensor.datatype, tensor.shape, memory.read(place))
        elif raw:
            if tensor.HasField("contents"):
                raise InvalidInputError(
                    f"contents field must not be specified when using raw_input_contents for '{tensor.name}' "
                    f"for model '{request.model_name}'"
                )
            content = next(waiting, None)
            if content is None:
                raise InvalidInputError(
                    f"unable to find data for input tensor '{tensor.name}' for model '{request.model_name}' in request."
                )
            array = from_raw(tensor.name, tensor.datatype, tensor.shape, content)
        else:
            array = _from_contents(tensor, request.model_name)
        inputs[tensor.name] = Tensor(tensor.datatype, array)
    return inputs


def _from_contents(tensor: pb.ModelInferRequest.InferInputTensor, model: str) -> Array:
    """A tensor that was sent as typed contents."""
    count = element_count(tensor.name, tensor.shape)
    filled = [field.name for field, _ in tensor.contents.ListFields()]
    if not filled and count:
        raise InvalidInputError(f"unable to find data for input tensor '{tensor.name}' for model '{model}' in request.")
    if filled and filled != [CONTENTS.get(tensor.datatype)]:
        raise InvalidInputError(
            f"unexpected explicit tensor data for input tensor '{tensor.name}' for model '{model}' in "
            f"{' and '.join(filled)}: {tensor.datatype} goes in {CONTENTS.get(tensor.datatype, 'raw_input_contents')}"
        )
    values = list(getattr(tensor.contents, filled[0])) if filled else []
    return from_values(tensor.name, tensor.datatype, tensor.shape, values)


@dataclass(frozen=True)
class Wanted:
    """An output that was asked for: as so many classes (0: as it is), in shared memory (None: in the answer)."""

    classes: int
    place: Place | None


def wanted_of(output: pb.ModelInferRequest.InferRequestedOutputTensor, memory: SharedMemory) -> Wanted:
    place = _place(output.parameters, output.name)
    if place:
        memory.require(place)
    if "classification" not in output.parameters:
        return Wanted(0, place)
    if place:
        raise InvalidInputError("Output can't set both 'shared_memory_region' and 'classification'")
    count = number_of(output.parameters, "classification", ("int64_param",))
    if count < 1:
        raise InvalidInputError(f"output '{output.name}': classification is {count}: must be at least 1")
    return Wanted(count, None)


def _place(parameters: Mapping[str, pb.InferParameter], name: str) -> Place | None:
    if "shared_memory_region" not in parameters:
        return None
    if "shared_memory_byte_size" not in parameters:
        raise InvalidInputError(f"'{name}' has a 'shared_memory_region' and no 'shared_memory_byte_size'")
    offset = number_of(parameters, "shared_memory_offset", ("int64_param",))
    byte_size = number_of(parameters, "shared_memory_byte_size", ("int64_param",))
    return Place(parameters["shared_memory_region"].string_param, offset, byte_size)


def number_of(parameters: Mapping[str, pb.InferParameter], key: str, accepted: tuple[str, ...]) -> int:
    if key not in parameters:
        return 0
    choice = parameters[key].WhichOneof("parameter_choice")
    if choice not in accepted:
        raise InvalidInputError(f"invalid value type for '{key}' parameter, expected {' or '.join(accepted)}.")
    value = int(getattr(parameters[key], choice))
    if value < 0:
        raise InvalidInputError(f"parameter '{key}' is {value}: must not be negative")
    return value


def response_of(
    identity: str, answer: InferenceAnswer, wanted: Mapping[str, Wanted], memory: SharedMemory
) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(model_name=answer.model, model_version=answer.version, id=identity)
    for spec, array in answer.outputs:
        datatype, asked = spec.datatype, wanted.get(spec.name, Wanted(0, None))
        if asked.classes:
            labels = answer.labels.get(spec.name, ())
            array = class_strings(array, spec, labels, asked.classes, batched=answer.batched)
            datatype = "BYTES"
        output = response.outputs.add(name=spec.name, datatype=datatype, shape=array.shape)
        content = to_raw(array)
        if asked.place:
            memory.write(asked.place, content, spec.name)
            output.parameters["shared_memory_region"].string_param = asked.place.region
            output.parameters["shared_memory_offset"].int64_param = asked.place.offset
            output.parameters["shared_memory_byte_size"].int64_param = asked.place.byte_size
            content = b""
        response.raw_output_contents.append(content)
    return response
