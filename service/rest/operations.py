"""What operators and callers ask about the service: health and models."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from service.lifecycle import Lifecycle
from service.repository import ModelEntry, Repository, VersionEntry
from service.rest.schemas import ErrorBody, ModelBody, ModelsBody, VersionBody


def operations_router(repository: Repository, lifecycle: Lifecycle) -> APIRouter:
    router = APIRouter()

    @router.get("/v2/health/live", summary="Whether the process is alive")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get(
        "/v2/health/ready",
        summary="Whether requests can be answered",
        responses={503: {"description": "Starting, stopping, or a model that is not ready.", "model": ErrorBody}},
    )
    async def ready() -> Response:
        reason = lifecycle.not_ready
        if reason is None:
            return JSONResponse({"ready": True})
        return JSONResponse({"ready": False, "error": reason}, status_code=503)

    @router.get("/v1/models", summary="Every model and its versions")
    async def models() -> ModelsBody:
        return ModelsBody(models=[_model(model) for model in repository.models.values()])

    @router.get("/v1/models/{name}", summary="One model", responses={404: {"model": ErrorBody}})
    async def model(name: str) -> ModelBody:
        return _model(repository.find(name))

    return router


def _model(model: ModelEntry) -> ModelBody:
    return ModelBody(
        name=model.name, reason=model.reason, versions=[_version(entry) for entry in model.versions.values()]
    )


def _version(entry: VersionEntry) -> VersionBody:
    served = entry.served
    if served is None:
        return VersionBody(version=entry.version, state=entry.state.value, reason=entry.reason)
    config = served.config
    return VersionBody(
        version=entry.version,
        state=entry.state.value,
        reason=entry.reason,
        proven=served.proven,
        execution_provider=served.execution_provider,
        instances=len(served.instances),
        max_batch_size=config.max_batch_size,
        input_shape=[config.preprocessing.height, config.preprocessing.width, 3],
        labels=list(config.labels),
    )
