"""`fovea.v1.Classifier`: the gRPC side of classification and embedding."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, cast

import grpc

from service.catalogue import Catalogue, ModelEntry, State, VersionEntry
from service.classifier import Answer, Classifier, Predictions, Result
from service.errors import FoveaError
from service.image_contract import ImageContract
from service.lifecycle import STOPPING, Lifecycle
from service.pb.fovea.v1 import classifier_pb2 as pb
from service.pb.fovea.v1 import classifier_pb2_grpc
from service.rpc.call import STREAM_WINDOW, Context, abort, begin, outcome, until
from service.telemetry import RequestRecord, Telemetry
from service.tensors import Array

Request = TypeVar("Request")
Response = TypeVar("Response")

STATES = {
    State.LOADING: pb.MODEL_STATE_LOADING,
    State.READY: pb.MODEL_STATE_READY,
    State.UNAVAILABLE: pb.MODEL_STATE_UNAVAILABLE,
}


class ClassifierServicer(classifier_pb2_grpc.ClassifierServicer):  # type: ignore[misc]
    """Args:
    request_timeout_s: for calls without a deadline, and the most that one may ask for.
    """

    def __init__(
        self,
        classifier: Classifier,
        catalogue: Catalogue,
        telemetry: Telemetry,
        lifecycle: Lifecycle,
        *,
        request_timeout_s: float,
    ) -> None:
        self._classifier = classifier
        self._catalogue = catalogue
        self._telemetry = telemetry
        self._lifecycle = lifecycle
        self._request_timeout_s = request_timeout_s

    async def Classify(self, request: pb.ClassifyRequest, context: Context) -> pb.ClassifyResponse:
        await begin(context, self._lifecycle, self._telemetry)
        answered = await self._outcome("Classify", self._classify, request, context)
        if isinstance(answered, FoveaError):
            # gRPC keeps the exception that `abort` raises, and with it this frame, until the garbage is
            # collected: leave no images in it.
            del request
            await abort(context, answered)
        return answered

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        await begin(context, self._lifecycle, self._telemetry)
        answered = await self._outcome("Embed", self._embed, request, context)
        if isinstance(answered, FoveaError):
            del request  # As in `Classify`.
            await abort(context, answered)
        return answered

    async def ClassifyStream(
        self, requests: AsyncIterator[pb.ClassifyRequest], context: Context
    ) -> AsyncIterator[pb.ClassifyStreamResponse]:
        await begin(context, self._lifecycle, self._telemetry)
        answers: asyncio.Queue[pb.ClassifyStreamResponse | None] = asyncio.Queue()
        window = asyncio.Semaphore(STREAM_WINDOW)

        async def answer(request: pb.ClassifyRequest) -> None:
            answers.put_nowait(await self._answer_on_stream(request))

        async def read() -> None:
            try:
                async with asyncio.TaskGroup() as group:
                    async for request in until(self._lifecycle.stopping, requests):
                        await window.acquire()
                        group.create_task(answer(request))
            finally:
                answers.put_nowait(None)

        reader = asyncio.create_task(read())
        try:
            while (response := await answers.get()) is not None:
                yield response
                # Only now: a client that does not read its answers is not read from either.
                window.release()
            await reader
        finally:
            reader.cancel()
        if self._lifecycle.stopping.is_set():
            await context.abort(grpc.StatusCode.UNAVAILABLE, STOPPING)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=[_model(model) for model in self._catalogue.models.values()])

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        try:
            return pb.GetModelResponse(model=_model(self._catalogue.find(request.name)))
        except FoveaError as error:
            await abort(context, error)

    async def _answer_on_stream(self, request: pb.ClassifyRequest) -> pb.ClassifyStreamResponse:
        answered = await self._outcome("ClassifyStream", self._classify, request, None)
        if isinstance(answered, FoveaError):
            return pb.ClassifyStreamResponse(id=request.id, error=_error(answered))
        return pb.ClassifyStreamResponse(id=request.id, response=answered)

    async def _outcome(
        self,
        method: str,
        answer: Callable[[Request, float, RequestRecord], Awaitable[Response]],
        request: Request,
        context: Context | None,
    ) -> Response | FoveaError:
        remaining_s = context.time_remaining() if context else None
        timeout_s = min(self._request_timeout_s, self._request_timeout_s if remaining_s is None else remaining_s)
        deadline = time.monotonic() + timeout_s
        return await outcome(
            self._lifecycle,
            self._telemetry,
            f"fovea.v1.Classifier/{method}",
            lambda record: answer(request, deadline, record),
            context,
        )

    async def _classify(
        self, request: pb.ClassifyRequest, deadline: float, record: RequestRecord
    ) -> pb.ClassifyResponse:
        record.model = self._classifier.known_model(request.model)
        answer = await self._classifier.classify(
            request.images,
            model=request.model,
            version=request.version,
            top_k=request.top_k or None,
            deadline=deadline,
        )
        self._observe(answer, record)
        results = [_classification(result) for result in answer.results]
        return pb.ClassifyResponse(id=request.id, model=answer.model, version=answer.version, results=results)

    async def _embed(self, request: pb.EmbedRequest, deadline: float, record: RequestRecord) -> pb.EmbedResponse:
        record.model = self._classifier.known_model(request.model, features=True)
        answer = await self._classifier.embed(
            request.images, model=request.model, version=request.version, deadline=deadline
        )
        self._observe(answer, record)
        results = [_embedding(result) for result in answer.results]
        return pb.EmbedResponse(id=request.id, model=answer.model, version=answer.version, results=results)

    def _observe(self, answer: Answer[Any], record: RequestRecord) -> None:
        """Raises:
        FoveaError: that of the only image.
        """
        self._telemetry.observe(answer, record)
        if len(answer.results) == 1 and isinstance(answer.results[0], FoveaError):
            # Left in `answer`, it and its traceback would keep each other.
            raise cast(FoveaError, answer.results.pop())


def _classification(result: Result[Predictions] | FoveaError) -> pb.ImageResult:
    if isinstance(result, FoveaError):
        return pb.ImageResult(error=_error(result))
    predictions = [pb.Prediction(label=p.label, index=p.index, probability=p.probability) for p in result.value]
    return pb.ImageResult(classification=pb.Classification(predictions=predictions, timings=_timings(result)))


def _embedding(result: Result[Array] | FoveaError) -> pb.EmbedResult:
    if isinstance(result, FoveaError):
        return pb.EmbedResult(error=_error(result))
    return pb.EmbedResult(embedding=pb.Embedding(values=result.value.tolist(), timings=_timings(result)))


def _timings(result: Result[Any]) -> pb.Timings:
    stages = result.stages
    return pb.Timings(
        decode_us=round(1e6 * stages.decode_s),
        queue_us=round(1e6 * stages.queue_s),
        inference_us=round(1e6 * stages.inference_s),
        total_us=round(1e6 * stages.total_s),
        batch_size=result.batch_size,
    )


def _error(error: FoveaError) -> pb.Error:
    code: int = error.grpc_code.value[0]
    return pb.Error(code=code, message=str(error))


def _model(model: ModelEntry) -> pb.Model:
    versions = [_version(entry) for entry in model.versions.values()]
    if model.reason:
        versions.append(pb.ModelVersion(state=pb.MODEL_STATE_UNAVAILABLE, reason=model.reason))
    return pb.Model(name=model.name, versions=versions)


def _version(entry: VersionEntry) -> pb.ModelVersion:
    version = pb.ModelVersion(version=entry.version, state=STATES[entry.state], reason=entry.reason)
    if served := entry.served:
        if isinstance(served.images, ImageContract):
            preprocessing = served.images.preprocessing
            version.labels.extend(served.images.labels)
            version.features = served.images.features
            version.input_shape.extend([preprocessing.height, preprocessing.width, 3])
        version.max_batch_size = served.config.max_batch_size
        version.execution_provider = served.execution_provider
        version.instances = len(served.instances)
        version.proven = served.proven
    return version
