"""Tensors in, tensors out, for any model and version: what both protocols, and the classifier, infer with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from service.batching import BatchRecord, Completed
from service.catalogue import Catalogue
from service.decoding import Decoder
from service.errors import FoveaError, InvalidInputError, NotFoundError
from service.image_contract import ImageContract
from service.loading import ServedVersion
from service.model_config import ModelConfig
from service.tensors import DTYPES, Array, Tensors, TensorSpec
from service.traffic import Chosen
from service.trial import Part

MAX_SHOWN_LENGTH = 100
"""Of a client's own words in an error, in characters."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input as a client sent it; `datatype` is what the client said, in the protocol's words."""

    datatype: str
    array: Array


class Timeline(NamedTuple):
    """When one inference began, entered the queue and ended, on `time.monotonic`'s clock; and its batch."""

    start: float
    queued: float
    queue_s: float
    batch: BatchRecord
    end: float


@dataclass(frozen=True, slots=True)
class InferenceAnswer:
    """The outputs that were asked for, in that order."""

    model: str
    version: str
    outputs: list[tuple[TensorSpec, Array]]
    labels: Mapping[str, Sequence[str]]
    batched: bool
    timeline: Timeline


class Inference:
    """Checks a request against the model's configuration, puts it in the queue, and counts."""

    def __init__(self, catalogue: Catalogue, decoder: Decoder) -> None:
        self._catalogue = catalogue
        self._decoder = decoder

    def known_model(self, name: str) -> str:
        """The model that a request's name stands for; empty where there is none."""
        return name and self._catalogue.known(name)

    def choose(self, model: str, version: str) -> Chosen:
        """The version that a request gets that has come; where it names none, as the model's rollout says.

        Raises:
            NotFoundError: no such model or version.
            UnavailableError: it is not ready.
        """
        if not model:
            raise NotFoundError("Request for unknown model: '' is not found")
        return self._catalogue.choose(model, version)

    def next(self, model: str, version: str) -> Chosen:
        """What `choose` will say; and whoever takes it has its part begin."""
        return self._catalogue.next(model, version)

    async def infer(
        self,
        served: ServedVersion,
        inputs: Mapping[str, Tensor],
        *,
        outputs: Sequence[str] = (),
        priority: int = 0,
        timeout_us: int = 0,
        deadline: float,
        request_id: str = "",
        part: Part | None = None,
    ) -> InferenceAnswer:
        """Infer one request.

        Args:
            part: the request's in a trial.
            request_id: the client's own; an error then begins with it.
            outputs: their names; none: all.
            priority: 1 the most urgent; 0: the model's default.
            timeout_us: longest time in the queue, where the model allows a request to say so; 0: the model's.
            deadline: on `time.monotonic`'s clock.

        Raises:
            FoveaError: the request cannot be answered.
        """
        start = time.monotonic()
        config = served.config
        try:
            wanted = _wanted(config, outputs)
            with served:
                item, rows = _item(config, await self._without_images(served, inputs, deadline))
                queued = time.monotonic()
                completed = await run(
                    served, item, rows, priority=priority, timeout_us=timeout_us, deadline=deadline, part=part
                )
        except FoveaError as error:
            if request_id:
                # Without its cause: that one's traceback holds the tensors.
                raise type(error)(f"[request id: {request_id[:MAX_SHOWN_LENGTH]}] {error}") from None
            raise
        return InferenceAnswer(
            served.name,
            served.version,
            [(config.outputs[index], completed.result[index]) for index in wanted],
            config.labels,
            config.max_batch_size > 0,
            Timeline(start, queued, completed.queue_s, completed.batch, time.monotonic()),
        )

    async def _without_images(
        self, served: ServedVersion, inputs: Mapping[str, Tensor], deadline: float
    ) -> Mapping[str, Tensor]:
        """Encoded images in place of a tensor, as BYTES of shape [N] or [N, 1], are decoded to that tensor."""
        if not isinstance(served.images, ImageContract):
            return inputs
        (spec,) = served.config.inputs
        given = inputs.get(spec.name)
        if given is None or given.datatype != "BYTES":
            return inputs
        images = given.array
        if images.ndim not in (1, 2) or images.size != len(images) or not 1 <= images.size <= served.max_rows:
            raise InvalidInputError(
                f"input '{spec.name}' of encoded images has shape {_listed(images.shape)}: must be [N] or [N,1], "
                f"N from 1 to {served.max_rows}"
            )
        rows = []
        for number, image in enumerate(images.ravel().tolist(), 1):
            try:
                rows.append(await self._decoder.decode(image, served.images, deadline))
            except FoveaError as error:
                raise type(error)(f"image {number} of {images.size}: {error}") from None
        tensor = np.concatenate(rows) if served.config.max_batch_size else rows[0]
        return {**inputs, spec.name: Tensor(spec.datatype, tensor)}


def check_input(name: str, datatype: str, others: Container[str]) -> None:
    """Raises:
    InvalidInputError: an input is in the request already, or of no datatype.
    """
    if name in others:
        raise InvalidInputError(f"input '{name}' already exists in request")
    if datatype not in DTYPES:
        raise InvalidInputError(
            f"inference input '{name}' data-type is '{datatype}': must be one of {', '.join(DTYPES)}"
        )


def check_parameters(names: Iterable[str]) -> None:
    """Raises:
    InvalidInputError: a request's parameter has a name that is the server's.
    """
    for name in names:
        if name.startswith("triton_") and name != "triton_enable_empty_final_response":
            raise InvalidInputError(
                f"parameter keys starting with 'triton_' are reserved: {name!r} is not one of "
                "triton_enable_empty_final_response"
            )


async def run(
    served: ServedVersion,
    item: Tensors,
    rows: int,
    *,
    priority: int = 0,
    timeout_us: int = 0,
    deadline: float,
    part: Part | None = None,
) -> Completed[Tensors]:
    """Put one checked request in the version's queue, and count how it fared.

    Args:
        part: the request's in a trial.

    Raises:
        FoveaError: as `DynamicBatcher.submit`.
    """
    config = served.config
    if not 1 <= priority <= config.priority_levels:
        priority = config.default_priority
    start = time.monotonic()
    try:
        completed = await served.batcher.submit(
            item,
            deadline,
            rows=rows,
            kind=served.kind(item),
            priority=priority,
            queue_timeout_s=config.queue_timeout_s(priority, timeout_us),
        )
    except (FoveaError, asyncio.CancelledError) as error:
        if part and isinstance(error, FoveaError):
            part.failed()
        served.statistics.on_failure(time.monotonic() - start, error)
        raise
    duration_s = time.monotonic() - start
    served.statistics.on_success(duration_s, completed.queue_s, completed.batch)
    if part:
        part.answered(item, rows, completed.result, duration_s)
    return completed


def _wanted(config: ModelConfig, outputs: Sequence[str]) -> list[int]:
    names = [spec.name for spec in config.outputs]
    for name in outputs:
        if name not in names:
            raise InvalidInputError(
                f"unexpected inference output '{name}' for model '{config.name}': must be one of {', '.join(names)}"
            )
    return [names.index(name) for name in dict.fromkeys(outputs)] if outputs else list(range(len(names)))


def _item(config: ModelConfig, inputs: Mapping[str, Tensor]) -> tuple[Tensors, int]:
    """The inputs in the model's order, and how many rows they are."""
    names = [spec.name for spec in config.inputs]
    if len(inputs) != len(names):
        missing = [name for name in names if name not in inputs]
        raise InvalidInputError(
            f"expected {len(names)} inputs but got {len(inputs)} inputs for model '{config.name}'. Got input(s) "
            f"[{_quoted(inputs)}], but missing required input(s) [{_quoted(missing)}]. "
            "Please provide all required input(s)."
        )
    for name in inputs:
        if name not in names:
            raise InvalidInputError(
                f"unexpected inference input '{name}' for model '{config.name}': must be one of {', '.join(names)}"
            )
    rows: int | None = None
    item = []
    for spec in config.inputs:
        tensor = inputs[spec.name]
        if tensor.datatype != spec.datatype:
            raise InvalidInputError(
                f"inference input '{spec.name}' data-type is '{tensor.datatype}', but model '{config.name}' expects "
                f"'{spec.datatype}'"
            )
        shape = tensor.array.shape
        if not config.max_batch_size:
            fits, expected = spec.fits(shape), list(spec.dims)
        else:
            fits, expected = bool(shape) and spec.fits(shape[1:]), [-1, *spec.dims]
        if not fits:
            raise InvalidInputError(
                f"unexpected shape for input '{spec.name}' for model '{config.name}'. Expected {_listed(expected)}, "
                f"got {_listed(shape)}"
            )
        if config.max_batch_size:
            if rows is not None and shape[0] != rows:
                raise InvalidInputError(
                    f"input '{names[0]}' batch size does not match other inputs for '{config.name}': "
                    f"{rows}, and {shape[0]} of '{spec.name}'"
                )
            rows = shape[0]
        if spec.datatype == "BYTES":
            _require_text(spec.name, tensor.array)
        item.append(tensor.array)
    if rows is not None and not 1 <= rows <= config.max_batch_size:
        raise InvalidInputError(
            f"inference request batch-size must be <= {config.max_batch_size} for '{config.name}', and at least 1; "
            f"it is {rows}"
        )
    return tuple(item), rows or 1


def _require_text(name: str, array: Array) -> None:
    """ONNX has strings where the protocol has bytes."""
    for number, element in enumerate(array.ravel().tolist()):
        try:
            element.decode()
        except UnicodeDecodeError:
            raise InvalidInputError(f"input '{name}': element {number} is not UTF-8, which strings are") from None


def _quoted(names: Iterable[str]) -> str:
    return ",".join(f"'{name}'" for name in names)


def _listed(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
