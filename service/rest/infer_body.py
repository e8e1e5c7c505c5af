"""The body of an inference request and of its answer: JSON, with tensors in it or behind it.

Open Inference Protocol, "inference"; Triton's extensions "binary tensor data" and "classification".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.class_strings import class_strings
from service.errors import InferenceError, InvalidInputError
from service.inference import InferenceAnswer, Tensor, check_input, check_parameters
from service.model_config import ModelConfig
from service.shared_memory import Place, SharedMemory
from service.tensors import DTYPES, Array, element_count, from_raw, from_values, to_raw

encode_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode

Count = Annotated[int, Field(ge=0, le=2**63 - 1)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class Placed(_Strict):
    """The parameters of a tensor that may lie in shared memory."""

    shared_memory_region: str | None = None
    shared_memory_offset: Count = 0
    shared_memory_byte_size: Count | None = None

    def place(self, name: str) -> Place | None:
        """Where it lies; None: not in shared memory.

        Raises:
            InvalidInputError: nobody says how large it is.
        """
        if self.shared_memory_region is None:
            return None
        if self.shared_memory_byte_size is None:
            raise InvalidInputError(f"'{name}' has a 'shared_memory_region' and no 'shared_memory_byte_size'")
        return Place(self.shared_memory_region, self.shared_memory_offset, self.shared_memory_byte_size)


class TensorParameters(Placed):
    binary_data_size: Count | None = None


class InputBody(_Strict):
    name: str
    datatype: str
    shape: list[int]
    parameters: TensorParameters = TensorParameters()
    data: list[Any] | None = None


class OutputParameters(Placed):
    binary_data: bool | None = None
    classification: Count = 0


class OutputBody(_Strict):
    name: str
    parameters: OutputParameters = OutputParameters()


class RequestParameters(_Strict):
    """Those that the service knows, and any others that a client has: a string, a number or a truth value each."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, str | int | float | bool]

    binary_data_output: bool = False
    priority: Count = 0
    timeout: Count = 0


class InferBody(_Strict):
    """An inference request's JSON; what the protocol has no name for is left alone."""

    id: str = ""
    inputs: list[InputBody]
    outputs: list[OutputBody] = []
    parameters: RequestParameters = Field(default_factory=lambda: RequestParameters.model_validate({}))


@dataclass(frozen=True)
class InferRequest:
    """An inference request. `outputs` empty: all; those not in it take `binary_output`."""

    inputs: Mapping[str, Tensor]
    id: str = ""
    outputs: Mapping[str, OutputParameters] = field(default_factory=dict)
    binary_output: bool = False
    priority: int = 0
    timeout_us: int = 0

    def asked(self, output: str) -> OutputParameters:
        return self.outputs.get(output) or OutputParameters()

    def in_binary(self, output: str) -> bool:
        """Whether an output goes behind the JSON rather than in it."""
        own = self.asked(output).binary_data
        return self.binary_output if own is None else own


def parse_request(content: bytes, header_length: str, config: ModelConfig, memory: SharedMemory) -> InferRequest:
    """Read a request's body.

    Args:
        header_length: the header `Inference-Header-Content-Length`: where the JSON ends and the tensors begin;
            "0": there is no JSON, all of it is the one input; empty: there are no tensors behind the JSON.

    Raises:
        InvalidInputError: it is not as the protocol has it.
    """
    if not header_length:
        return _from_json(content, memoryview(b""), memory)
    number = header_length.isascii() and header_length.isdecimal() and len(header_length) < 19
    if not number or int(header_length) > len(content):
        raise InvalidInputError(
            f"Inference-Header-Content-Length is {header_length[:19]!r}: must be the length of the body's JSON, "
            f"0 to {len(content)}"
        )
    length = int(header_length)
    if not length:
        return InferRequest(_raw(content, config), binary_output=True)
    return _from_json(content[:length], memoryview(content)[length:], memory)


def _from_json(content: bytes, binary: memoryview, memory: SharedMemory) -> InferRequest:
    try:
        body = InferBody.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            raise InvalidInputError(f"failed to parse the request JSON buffer: {first['msg']}") from None
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInputError(f"inference request: {where + ': ' if where else ''}{first['msg']}") from None
    check_parameters(body.parameters.model_extra or {})
    inputs: dict[str, Tensor] = {}
    at = 0
    for tensor in body.inputs:
        check_input(tensor.name, tensor.datatype, inputs)
        size = tensor.parameters.binary_data_size
        if place := tensor.parameters.place(tensor.name):
            if size is not None or tensor.data is not None:
                raise InvalidInputError(
                    f"input '{tensor.name}' has 'shared_memory_region', and 'data' or 'binary_data_size': must be one"
                )
            array = from_raw(tensor.name, tensor.datatype, tensor.shape, memory.read(place))
        elif size is None:
            array = _from_data(tensor)
        elif tensor.data is not None:
            raise InvalidInputError(
                f"input '{tensor.name}' has both 'data' and 'binary_data_size': must be one of them"
            )
        else:
            if at + size > len(binary):
                raise InvalidInputError(
                    f"input '{tensor.name}': binary_data_size is {size}, but {len(binary) - at} bytes are left"
                )
            array = from_raw(tensor.name, tensor.datatype, tensor.shape, binary[at : at + size])
            at += size
        inputs[tensor.name] = Tensor(tensor.datatype, array)
    if at != len(binary):
        raise InvalidInputError(f"{len(binary) - at} bytes of binary data are left over that no input claims")
    outputs = {output.name: output.parameters for output in body.outputs}
    for name, parameters in outputs.items():
        if place := parameters.place(name):
            memory.require(place)
            if parameters.classification:
                raise InvalidInputError("Output can't set both 'shared_memory_region' and 'classification'")
    return InferRequest(
        inputs,
        body.id,
        outputs,
        body.parameters.binary_data_output,
        body.parameters.priority,
        body.parameters.timeout,
    )


def _from_data(tensor: InputBody) -> Array:
    """A tensor whose elements are in the JSON, flat or nested in any way."""
    if tensor.data is None:
        raise InvalidInputError(f"input '{tensor.name}' has neither 'data' nor 'binary_data_size': must be one of them")
    if tensor.datatype == "FP16":
        raise InvalidInputError(
            f"receiving FP16 data via JSON is not supported. Please use the binary data format for input {tensor.name}"
        )
    dtype = DTYPES[tensor.datatype]
    expected = {"b": "truth values", "i": "whole numbers", "u": "whole numbers, not negative", "f": "numbers"}.get(
        dtype.kind, "strings"
    )
    accepted = {"b": (bool,), "f": (int, float), "O": (str,)}.get(dtype.kind, (int,))
    values: list[object] = []
    for value in _flat(tensor.data):
        if not isinstance(value, accepted) or (isinstance(value, bool) and dtype.kind != "b"):
            raise InvalidInputError(f"input '{tensor.name}' of {tensor.datatype} has {value!r}: must be {expected}")
        values.append(value.encode() if isinstance(value, str) else value)
    return from_values(tensor.name, tensor.datatype, tensor.shape, values)


def _flat(data: list[Any]) -> Iterator[Any]:
    waiting = [iter(data)]
    while waiting:
        for value in waiting[-1]:
            if isinstance(value, list):
                waiting.append(iter(value))
                break
            yield value
        else:
            waiting.pop()


def _raw(content: bytes, config: ModelConfig) -> dict[str, Tensor]:
    """The whole body as the model's one input, of one row."""
    if len(config.inputs) != 1:
        raise InvalidInputError(
            f"Raw request must only have 1 input to be deduced but got {len(config.inputs)} inputs in "
            f"'{config.name}' model configuration"
        )
    (spec,) = config.inputs
    batch = (1,) if config.max_batch_size else ()
    if spec.datatype == "BYTES":
        shape = (*batch, *(1 for _ in spec.dims))
        return {spec.name: Tensor("BYTES", from_values(spec.name, "BYTES", shape, [content]))}
    if spec.dims.count(-1) > 1:
        raise InvalidInputError(
            f"The shape of the raw input '{spec.name}' can not be deduced because there are more than one "
            "variable-sized dimension"
        )
    known = element_count(spec.name, [size for size in spec.dims if size != -1]) * DTYPES[spec.datatype].itemsize
    deduced = len(content) // known if known else 0
    shape = (*batch, *(deduced if size == -1 else size for size in spec.dims))
    return {spec.name: Tensor(spec.datatype, from_raw(spec.name, spec.datatype, shape, content))}


def write_answer(request: InferRequest, answer: InferenceAnswer, memory: SharedMemory) -> tuple[bytes, int | None]:
    """An answer's body, and how much of it is JSON; None: all of it.

    Raises:
        InvalidInputError: an output cannot be had in the form that was asked for.
        InferenceError: an output of strings holds some that JSON cannot.
    """
    outputs: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for spec, values in answer.outputs:
        asked = request.asked(spec.name)
        array, datatype = values, spec.datatype
        if asked.classification:
            labels = answer.labels.get(spec.name, ())
            array = class_strings(values, spec, labels, asked.classification, batched=answer.batched)
            datatype = "BYTES"
        output: dict[str, Any] = {"name": spec.name, "datatype": datatype, "shape": list(array.shape)}
        if place := asked.place(spec.name):
            memory.write(place, to_raw(array), spec.name)
            output["parameters"] = {
                "shared_memory_region": place.region,
                "shared_memory_offset": place.offset,
                "shared_memory_byte_size": place.byte_size,
            }
        elif request.in_binary(spec.name):
            binary.append(to_raw(array))
            output["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            output["data"] = _to_data(spec.name, datatype, array)
        outputs.append(output)
    body: dict[str, Any] = {"id": request.id} if request.id else {}
    body |= {"model_name": answer.model, "model_version": answer.version, "outputs": outputs}
    content = encode_json(body).encode()
    if not binary:
        return content, None
    return b"".join([content, *binary]), len(content)


def _to_data(name: str, datatype: str, array: Array) -> list[Any]:
    if datatype == "FP16":
        raise InvalidInputError(
            "sending FP16 data via JSON is not supported. Please use the binary data format for output"
        )
    values: list[Any] = array.ravel().tolist()
    if datatype != "BYTES":
        return values
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError:
        raise InferenceError(f"output '{name}' is not UTF-8: ask for it as binary data") from None
