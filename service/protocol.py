"""What the Open Inference Protocol and Triton's extensions tell about the service: the messages of both adapters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from importlib.metadata import version

from tritonclient.grpc import service_pb2 as pb

from service.catalogue import Catalogue, State
from service.errors import FoveaError, InvalidInputError
from service.loading import ServedVersion
from service.statistics import BatchStatistics, Duration
from service.tensors import TensorSpec

EXTENSIONS = (
    "classification",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "schedule_policy",
    "statistics",
)
"""Triton's extensions that the service always has."""
CONTROL_EXTENSIONS = ("model_repository", "model_repository(unload_dependents)")
SYSTEM_SHARED_MEMORY_EXTENSION = "system_shared_memory"
CUDA_SHARED_MEMORY_EXTENSION = "cuda_shared_memory"
LOG_AND_TRACE_EXTENSIONS = ("trace", "logging")


class ServiceInformation:
    """Answers for the protocol's questions about the server and its models.

    Args:
        counted: what was counted, of one version, of a model's, or of all.
        name: the server's, in its metadata.
        allowed: the extensions that the settings allow besides those that there always are.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        counted: Callable[[str, str], Awaitable[pb.ModelStatisticsResponse]],
        *,
        name: str,
        allowed: Iterable[str],
    ) -> None:
        self._catalogue = catalogue
        self._counted = counted
        self._name = name
        self._extensions = [*EXTENSIONS, *allowed]

    def server(self) -> pb.ServerMetadataResponse:
        return pb.ServerMetadataResponse(name=self._name, version=version("fovea"), extensions=self._extensions)

    def ready(self, model: str, model_version: str) -> bool:
        """Whether a model, or a version of it, takes requests; False where there is none."""
        try:
            self._catalogue.resolve(model, model_version)
        except FoveaError:
            return False
        return True

    def model(self, model: str, model_version: str) -> pb.ModelMetadataResponse:
        served = self._catalogue.resolve(model, model_version)
        versions = [model_version] if model_version else self._catalogue.ready_versions(model)
        batch = [-1] if served.config.max_batch_size else []

        def tensor(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
            return pb.ModelMetadataResponse.TensorMetadata(
                name=spec.name, datatype=spec.datatype, shape=[*batch, *spec.dims]
            )

        return pb.ModelMetadataResponse(
            name=served.name,
            versions=versions,
            platform=served.config.proto.platform,
            inputs=map(tensor, served.config.inputs),
            outputs=map(tensor, served.config.outputs),
        )

    def config(self, model: str, model_version: str) -> pb.ModelConfigResponse:
        return pb.ModelConfigResponse(config=self._catalogue.resolve(model, model_version).config.proto)

    async def statistics(self, model: str, model_version: str) -> pb.ModelStatisticsResponse:
        """Of one version, of a model's, or of all.

        Raises:
            InvalidInputError: no such model or version is served.
        """
        return await self._counted(model, model_version)

    def index(self, *, ready: bool) -> pb.RepositoryIndexResponse:
        """Every model version, or those that are ready."""
        return pb.RepositoryIndexResponse(models=self._index(ready))

    def _index(self, ready: bool) -> Iterator[pb.RepositoryIndexResponse.ModelIndex]:
        index = pb.RepositoryIndexResponse.ModelIndex
        for model in self._catalogue.models.values():
            for entry in model.versions.values():
                if entry.state is State.READY or not ready:
                    yield index(name=model.name, version=entry.version, state=entry.state.value, reason=entry.reason)
            if not model.versions and not ready:
                state = State.UNAVAILABLE.value if model.wanted else ""
                yield index(name=model.name, state=state, reason=model.reason)


def statistics_of(catalogue: Catalogue, model: str, model_version: str) -> pb.ModelStatisticsResponse:
    """What this process has counted, of one version, of a model's, or of all.

    Raises:
        InvalidInputError: no such model or version is served.
    """
    found = [
        served for served in catalogue.served() if model in ("", served.name) and model_version in ("", served.version)
    ]
    if model and not found:
        raise InvalidInputError(f"requested model '{model}' is not available")
    return pb.ModelStatisticsResponse(model_stats=map(_statistics, found))


def require_version(text: str) -> str:
    """A version as a client named it.

    Raises:
        InvalidInputError: it is no number.
    """
    if text and not (text.isascii() and text.isdecimal()):
        raise InvalidInputError(f"model version {text!r}: must be a whole number > 0")
    return text


def _statistics(served: ServedVersion) -> pb.ModelStatistics:
    counted = served.statistics
    return pb.ModelStatistics(
        name=served.name,
        version=served.version,
        last_inference=counted.last_inference_ms,
        inference_count=counted.inference_count,
        execution_count=counted.execution_count,
        inference_stats=pb.InferStatistics(
            success=_duration(counted.success),
            fail=_duration(counted.fail),
            queue=_duration(counted.queue),
            compute_input=_duration(counted.requests.compute_input),
            compute_infer=_duration(counted.requests.compute_infer),
            compute_output=_duration(counted.requests.compute_output),
            # There is no cache; clients read these all the same.
            cache_hit=pb.StatisticDuration(),
            cache_miss=pb.StatisticDuration(),
        ),
        batch_stats=[_batch(size, executions) for size, executions in sorted(counted.by_batch_size.items())],
    )


def _batch(size: int, executions: BatchStatistics) -> pb.InferBatchStatistics:
    return pb.InferBatchStatistics(
        batch_size=size,
        compute_input=_duration(executions.compute_input),
        compute_infer=_duration(executions.compute_infer),
        compute_output=_duration(executions.compute_output),
    )


def _duration(duration: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=duration.count, ns=duration.ns)
