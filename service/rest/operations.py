"""What operators and callers ask about the models."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from service.catalogue import Catalogue, ModelEntry, VersionEntry
from service.image_contract import ImageContract
from service.rest.schemas import ModelBody, ModelsBody, VersionBody


def operations_routes(catalogue: Catalogue) -> list[Route]:
    async def models(request: Request) -> JSONResponse:
        body = ModelsBody(models=[_model(model) for model in catalogue.models.values()])
        return JSONResponse(body.model_dump())

    async def model(request: Request) -> JSONResponse:
        return JSONResponse(_model(catalogue.find(request.path_params["name"])).model_dump())

    return [
        Route("/v1/models", models),
        Route("/v1/models/{name}", model),
    ]


def _model(model: ModelEntry) -> ModelBody:
    return ModelBody(
        name=model.name, reason=model.reason, versions=[_version(entry) for entry in model.versions.values()]
    )


def _version(entry: VersionEntry) -> VersionBody:
    served = entry.served
    if served is None:
        return VersionBody(version=entry.version, state=entry.state.value, reason=entry.reason)
    images = served.images
    return VersionBody(
        version=entry.version,
        state=entry.state.value,
        reason=entry.reason,
        proven=served.proven,
        execution_provider=served.execution_provider,
        instances=len(served.instances),
        max_batch_size=served.config.max_batch_size,
        largest_batch=served.largest_batch,
        input_shape=[images.preprocessing.height, images.preprocessing.width, 3]
        if isinstance(images, ImageContract)
        else [],
        labels=list(images.labels) if isinstance(images, ImageContract) else [],
        features=images.features if isinstance(images, ImageContract) else 0,
    )
