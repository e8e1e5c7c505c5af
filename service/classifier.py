"""Encoded images in, ranked labels out: the one use case that both protocols share."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.decoding import Decoder
from service.errors import (
    FoveaError,
    InferenceError,
    InvalidInputError,
    TooLargeError,
)
from service.image_contract import ImageContract, NoImagesError, Scores
from service.inference import Timeline, run
from service.loading import ServedVersion
from service.repository import Repository
from service.tensors import Array

DEFAULT_TOP_K = 5

EncodedImage = bytes | FoveaError
"""An encoded image, or why there is none (its base64 was wrong, say): then that is its result."""


@dataclass(frozen=True, slots=True)
class Prediction:
    label: str
    index: int
    probability: float


@dataclass(frozen=True, slots=True)
class Stages:
    """Where one image's time went, in seconds. `queue_s` ends where its batch begins."""

    decode_s: float
    queue_s: float
    batch_assembly_s: float
    inference_s: float
    postprocessing_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Classification:
    """One image's predictions, the most probable first."""

    predictions: list[Prediction]
    stages: Stages
    batch_size: int
    timeline: Timeline


@dataclass(frozen=True, slots=True)
class Answer:
    """One result for each image, in the order of the request."""

    model: str
    version: str
    results: list[Classification | FoveaError]


class Classifier:
    """Decodes, infers and ranks.

    Args:
        max_images: most images in one request.
    """

    def __init__(
        self,
        repository: Repository,
        decoder: Decoder,
        *,
        max_images: int,
    ) -> None:
        self._repository = repository
        self._decoder = decoder
        self._max_images = max_images

    async def classify(
        self,
        images: Sequence[EncodedImage],
        *,
        model: str = "",
        version: str = "",
        top_k: int | None = None,
        deadline: float,
    ) -> Answer:
        """Classify the images of one request. An image that cannot be decoded, or that the model fails on, gets its
        own error as its result.

        Args:
            model, version: empty: the default model, its highest ready version.
            top_k: predictions for each image, 5 where None.
            deadline: on `time.monotonic`'s clock.

        Raises:
            FoveaError: the request as a whole cannot be answered.
        """
        served = self._repository.resolve(model, version)
        if isinstance(served.images, NoImagesError):
            raise InvalidInputError(f"images cannot be sent to model '{served.name}', tensors can: {served.images}")
        if not images:
            raise InvalidInputError("no images in the request")
        if len(images) > self._max_images:
            raise TooLargeError(f"{len(images)} images: a request may have at most {self._max_images}")
        if top_k is not None and top_k < 1:
            raise InvalidInputError(f"top_k is {top_k}: must be at least 1")
        top_k = top_k or DEFAULT_TOP_K
        with served:
            if len(images) == 1:
                results = [await self._result(images[0], served, served.images, top_k, deadline)]
            else:
                results = await self._results(images, served, served.images, top_k, deadline)
        return Answer(served.name, served.version, results)

    def known_model(self, name: str) -> str:
        """The model that a request's name stands for; empty where there is none."""
        return self._repository.known(name)

    async def _results(
        self,
        images: Sequence[EncodedImage],
        served: ServedVersion,
        contract: ImageContract,
        top_k: int,
        deadline: float,
    ) -> list[Classification | FoveaError]:
        # One request's images enter the queue a batch at a time, so a long one cannot starve a single image.
        window = asyncio.Semaphore(max(1, served.config.max_batch_size))

        async def in_turn(number: int, image: EncodedImage) -> Classification | FoveaError:
            async with window:
                result = await self._result(image, served, contract, top_k, deadline)
            if isinstance(result, FoveaError):
                return type(result)(f"image {number} of {len(images)}: {result}")
            return result

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(in_turn(number, image)) for number, image in enumerate(images, 1)]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _result(
        self, image: EncodedImage, served: ServedVersion, contract: ImageContract, top_k: int, deadline: float
    ) -> Classification | FoveaError:
        start = time.monotonic()
        if isinstance(image, FoveaError):
            return image
        try:
            tensor = await self._decoder.decode(image, contract, deadline)
        except (InvalidInputError, TooLargeError) as error:
            return error.with_traceback(None)  # The traceback holds the image.
        decoded = time.monotonic()
        try:
            completed = await run(served, (tensor,), 1, deadline=deadline)
            inferred = time.monotonic()
            predictions = rank(completed.result[contract.output], contract.labels, top_k, contract.scores)
        except InferenceError as error:
            return error.with_traceback(None)
        end = time.monotonic()
        stages = Stages(
            decode_s=decoded - start,
            queue_s=completed.queue_s,
            batch_assembly_s=completed.batch.assembly_s,
            inference_s=completed.batch.inference_s,
            postprocessing_s=end - inferred,
            total_s=end - start,
        )
        timeline = Timeline(start, decoded, completed.queue_s, completed.batch, end)
        return Classification(predictions, stages, completed.batch.batch_size, timeline)


def rank(scores: Array, labels: Sequence[str], top_k: int, kind: Scores = "logits") -> list[Prediction]:
    """The `top_k` most probable classes in descending order, of one image's scores, whatever their shape.

    Raises:
        InferenceError: a score is NaN or infinite.
    """
    values = scores.astype(np.float64).reshape(-1)
    largest = float(values.max())
    if not math.isfinite(largest):
        raise InferenceError(f"the model's {kind} are not finite for this image")
    # Before the softmax, in which far smaller logits would all be zero.
    ranked = np.argsort(-values, kind="stable")[:top_k]
    if kind == "logits":
        values = np.exp(values - largest)
        values /= values.sum()
    return [Prediction(labels[index], index, float(values[index])) for index in ranked.tolist()]
