"""The JSON that the HTTP API takes and gives; the source of its OpenAPI description."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class ErrorBody(BaseModel):
    error: str = Field(description="What was wrong, and what would be right.")


class PredictionBody(BaseModel):
    label: str
    index: int
    probability: float


class TimingsBody(BaseModel):
    decode_us: int
    queue_us: int
    inference_us: int
    total_us: int
    batch_size: int = Field(description="Images in the batch that this one was part of.")


class ClassificationBody(BaseModel):
    model: str
    version: str
    predictions: list[PredictionBody] = Field(description="The most probable first.")
    timings: TimingsBody


class ResultsBody(BaseModel):
    results: list[ClassificationBody | ErrorBody] = Field(description="One for each image, in the order sent.")


class EmbeddingBody(BaseModel):
    model: str
    version: str
    embedding: list[float] = Field(description="The image's features.")
    timings: TimingsBody


class EmbeddingsBody(BaseModel):
    results: list[EmbeddingBody | ErrorBody] = Field(description="One for each image, in the order sent.")


class EmbedBody(BaseModel):
    """A request in JSON."""

    model_config = ConfigDict(extra="forbid", strict=True)

    images: list[str] = Field(description="Encoded images, each in base64.")
    model: str = ""
    version: str = ""


class ClassifyBody(EmbedBody):
    """A request in JSON."""

    top_k: int = Field(default=5, ge=1, description="Predictions for each image.")


class VersionBody(BaseModel):
    version: str
    state: str = Field(description="LOADING, READY or UNAVAILABLE.")
    reason: str = Field(description="Why the version is not ready.")
    proven: bool = Field(default=False, description="Whether its golden sample was checked.")
    execution_provider: str = ""
    instances: int = 0
    max_batch_size: int = Field(default=0, description="As the model's configuration has it.")
    largest_batch: int = Field(default=0, description="Most images in a batch that requests share.")
    input_shape: list[int] = Field(default=[], description="Height, width, channels.")
    labels: list[str] = []
    features: int = Field(default=0, description="Numbers in an embedding; 0: it gives none.")


class ModelBody(BaseModel):
    name: str
    reason: str = Field(description="Why none of its versions could be tried.")
    versions: list[VersionBody]


class ModelsBody(BaseModel):
    models: list[ModelBody]


class LiveBody(BaseModel):
    live: bool


class ReadyBody(BaseModel):
    ready: bool
    error: str = Field(default="", description="Why it is not; with API keys the metrics port alone says so.")


class ModelReadyBody(BaseModel):
    name: str
    ready: bool


class AnswerTensorBody(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int | str] = Field(default={}, description="Where it lies, if not in data.")
    data: list[Any] = Field(default=[], description="Its elements, flat and row-major.")


class InferAnswerBody(BaseModel):
    """An inference request's answer."""

    id: str = Field(default="", description="The request's.")
    model_name: str
    model_version: str
    outputs: list[AnswerTensorBody]


class IndexBody(BaseModel):
    """A request for the index of the model repository."""

    model_config = ConfigDict(strict=True)

    ready: bool = Field(default=False, description="Whether only what is ready is asked for.")


class IndexEntryBody(BaseModel):
    name: str
    version: str
    state: str = Field(description="LOADING, READY or UNAVAILABLE; empty: never loaded.")
    reason: str = Field(default="", description="Why it is not ready.")


class SystemRegionBody(BaseModel):
    """A region of system shared memory."""

    name: str
    key: str
    offset: int
    byte_size: int


class CudaRegionBody(BaseModel):
    """A region of CUDA shared memory."""

    name: str
    device_id: int
    byte_size: int
