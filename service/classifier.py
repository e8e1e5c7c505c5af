"""Encoded images in, ranked labels or features out: the use cases that both protocols share."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from service.catalogue import Catalogue
from service.decoding import Decoder
from service.errors import (
    FoveaError,
    InferenceError,
    InvalidInputError,
    QueueFullError,
    TooLargeError,
)
from service.image_contract import ImageContract, NoImagesError, Scores
from service.inference import Timeline, run
from service.loading import ServedVersion
from service.tensors import Array
from service.trial import Part

DEFAULT_TOP_K = 5

Value = TypeVar("Value")

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
class Result(Generic[Value]):
    """What came of one image, and where its time went."""

    value: Value
    stages: Stages
    batch_size: int
    timeline: Timeline


@dataclass(frozen=True, slots=True)
class Answer(Generic[Value]):
    """One result for each image, in the order of the request."""

    model: str
    version: str
    results: list[Result[Value] | FoveaError]


Predictions = list[Prediction]
"""Of one image, the most probable first."""


class Classifier:
    """Decodes, infers, and ranks the scores or hands out the features.

    Args:
        max_images: most images in one request.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        decoder: Decoder,
        *,
        max_images: int,
    ) -> None:
        self._catalogue = catalogue
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
    ) -> Answer[Predictions]:
        """Classify the images of one request. An image that cannot be decoded, or that the model fails on, gets its
        own error as its result.

        Args:
            model, version: empty: the default model, and the version that its rollout says; the highest that is ready
                where it says none.
            top_k: predictions for each image, 5 where None.
            deadline: on `time.monotonic`'s clock.

        Raises:
            FoveaError: the request as a whole cannot be answered.
        """
        served, part = self._catalogue.choose(model, version)
        contract = _image_contract(served)
        if contract.features:
            raise InvalidInputError(
                f"model '{served.name}' gives features, not classes: /v1/embed and Embed return them"
            )
        if top_k is not None and top_k < 1:
            raise InvalidInputError(f"top_k is {top_k}: must be at least 1")

        def ranked(scores: Array) -> Predictions:
            return rank(scores, contract.labels, top_k or DEFAULT_TOP_K, contract.scores)

        return await self._answer(images, served, part, contract, ranked, deadline)

    async def embed(
        self, images: Sequence[EncodedImage], *, model: str = "", version: str = "", deadline: float
    ) -> Answer[Array]:
        """Each image's features, (D,) float32. As `classify`, but that the default is the only model of features."""
        served, part = self._catalogue.choose(model, version, features=True)
        contract = _image_contract(served)
        if not contract.features:
            raise InvalidInputError(
                f"model '{served.name}' gives classes, not features: /v1/classify and Classify return them"
            )
        return await self._answer(images, served, part, contract, finite, deadline)

    def known_model(self, name: str, *, features: bool = False) -> str:
        """The model that a request's name stands for; empty where there is none.

        Args:
            features: whether the request is to `embed`.
        """
        return self._catalogue.known(name, features=features)

    def refuse_if_full(self, model: str, version: str, *, features: bool) -> tuple[str, QueueFullError] | None:
        """What a request with one image would fail with right now, and the model, where that is a full queue; counted
        then.

        Args:
            model, version: as for `classify` and `embed`.
            features: whether the request is to `embed`.
        """
        try:
            served, part = self._catalogue.next(model, version, features=features)
        except FoveaError:
            return None
        if isinstance(served.images, NoImagesError) or bool(served.images.features) is not features:
            return None
        try:
            served.batcher.require_room()
        except QueueFullError as error:
            if part:
                part.begin()
            _count_refused(served, part, error)
            return served.name, error
        return None

    async def _answer(
        self,
        images: Sequence[EncodedImage],
        served: ServedVersion,
        part: Part | None,
        contract: ImageContract,
        finish: Callable[[Array], Value],
        deadline: float,
    ) -> Answer[Value]:
        """Args:
        finish: what is to be made of the output for one image.
        """
        if not images:
            raise InvalidInputError("no images in the request")
        if len(images) > self._max_images:
            raise TooLargeError(f"{len(images)} images: a request may have at most {self._max_images}")
        with served:
            if len(images) == 1:
                results = [await self._result(images[0], served, part, contract, finish, deadline)]
            else:
                results = await self._results(images, served, part, contract, finish, deadline)
        return Answer(served.name, served.version, results)

    async def _results(
        self,
        images: Sequence[EncodedImage],
        served: ServedVersion,
        part: Part | None,
        contract: ImageContract,
        finish: Callable[[Array], Value],
        deadline: float,
    ) -> list[Result[Value] | FoveaError]:
        # One request's images enter the queue a batch at a time, so a long one cannot starve a single image.
        window = asyncio.Semaphore(max(1, served.config.max_batch_size))

        async def in_turn(number: int, image: EncodedImage) -> Result[Value] | FoveaError:
            async with window:
                result = await self._result(image, served, part, contract, finish, deadline)
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
        self,
        image: EncodedImage,
        served: ServedVersion,
        part: Part | None,
        contract: ImageContract,
        finish: Callable[[Array], Value],
        deadline: float,
    ) -> Result[Value] | FoveaError:
        start = time.monotonic()
        if isinstance(image, FoveaError):
            return image
        # A photo takes longer to decode than it should take to refuse.
        try:
            served.batcher.require_room()
        except QueueFullError as error:
            _count_refused(served, part, error)
            raise
        try:
            tensor = await self._decoder.decode(image, contract, deadline)
        except (InvalidInputError, TooLargeError) as error:
            return error.with_traceback(None)  # The traceback holds the image.
        decoded = time.monotonic()
        try:
            completed = await run(served, (tensor,), 1, deadline=deadline, part=part)
            inferred = time.monotonic()
            value = finish(completed.result[contract.output])
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
        return Result(value, stages, completed.batch.batch_size, timeline)


def _count_refused(served: ServedVersion, part: Part | None, error: QueueFullError) -> None:
    if part:
        part.failed()
    served.statistics.on_failure(0.0, error)


def _image_contract(served: ServedVersion) -> ImageContract:
    if isinstance(served.images, NoImagesError):
        raise InvalidInputError(f"images cannot be sent to model '{served.name}', tensors can: {served.images}")
    return served.images


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


def finite(features: Array) -> Array:
    """One image's features (D,), whatever their shape was.

    Raises:
        InferenceError: one is NaN or infinite.
    """
    if not np.isfinite(features).all():
        raise InferenceError("the model's features are not finite for this image")
    return features.reshape(-1)
