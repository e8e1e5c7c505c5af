"""The HTTP API's OpenAPI description, and the page that tries it out with scripts of our own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path
from tritonclient.grpc import model_config_pb2, service_pb2

from service.rest.authentication import right_for
from service.rest.infer_body import InferBody
from service.rest.load_body import LoadBody
from service.rest.page_headers import page_headers
from service.rest.protobuf_json import schema_name, schemas
from service.rest.schemas import (
    ClassificationBody,
    ClassifyBody,
    CudaRegionBody,
    EmbedBody,
    EmbeddingBody,
    EmbeddingsBody,
    ErrorBody,
    IndexBody,
    IndexEntryBody,
    InferAnswerBody,
    LiveBody,
    ModelBody,
    ModelReadyBody,
    ModelsBody,
    ReadyBody,
    ResultsBody,
    SystemRegionBody,
)
from service.rest.shared_memory import CudaRegisterBody, SystemRegisterBody

Schema = dict[str, Any]
Content = dict[str, dict[str, Any]]

COMPONENTS = "#/components/schemas/"
BODIES = (
    *(ClassificationBody, ClassifyBody, EmbedBody, EmbeddingBody, EmbeddingsBody, ErrorBody),
    *(IndexBody, IndexEntryBody, InferAnswerBody, InferBody, LiveBody),
    *(LoadBody, ModelBody, ModelReadyBody, ModelsBody, ReadyBody, ResultsBody),
    *(CudaRegionBody, CudaRegisterBody, SystemRegionBody, SystemRegisterBody),
)
MESSAGES = (
    service_pb2.ServerMetadataResponse,
    service_pb2.ModelMetadataResponse,
    service_pb2.ModelStatisticsResponse,
    model_config_pb2.ModelConfig,
)
"""The protocol's messages that are answers."""

ERRORS = {
    400: "The request is malformed, or does not fit the model.",
    401: "No API key, or none that is known.",
    403: "The service's settings do not allow it, or the API key's rights.",
    404: "No such path, model, version or region.",
    413: "The body, or an image in it, is too large.",
    415: "No such content type or encoding.",
    500: "The model failed on the request.",
    501: "A part of the protocol that is not there.",
    503: "Too busy, not ready or stopping: the same request may succeed later.",
    504: "Not answered in time.",
}
READ = (400, 413, 415, 503, 504)
"""What may go wrong where a body is read."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Fovea</title>
<link rel="icon" href="/docs/assets/favicon-32x32.png">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "/openapi.json", dom_id: "#page"})</script>
</body>
</html>
"""


class _Schemas(GenerateJsonSchema):
    """JSON schemas as OpenAPI 3.0 has them: what may be null says so in a word of its own."""

    def nullable_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"]) | {"nullable": True}


def _of(body: type[BaseModel] | type[Message]) -> Schema:
    name = schema_name(body.DESCRIPTOR) if issubclass(body, Message) else body.__name__
    return {"$ref": COMPONENTS + name}


def _json(schema: Schema) -> Content:
    return {"application/json": {"schema": schema}}


def _parameter(place: str, name: str, schema: Schema, description: str = "", *, required: bool = False) -> Schema:
    return {"in": place, "name": name, "schema": schema, "description": description, "required": required}


def _list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


TEXT = {"type": "string"}
BINARY = {"schema": {"type": "string", "format": "binary"}}
TOP_K = {"type": "integer", "minimum": 1, "maximum": 10**9 - 1, "default": 5}
FLAG = {"type": "boolean"}
LOG_SETTINGS = {
    "type": "object",
    "properties": {
        "log_file": TEXT | {"readOnly": True},
        **dict.fromkeys(("log_info", "log_warning", "log_error"), FLAG),
        "log_verbose_level": {"type": "integer", "minimum": 0},
        "log_format": TEXT | {"enum": ["default", "ISO8601"]},
    },
}
TRACE_SETTINGS = {
    "type": "object",
    "properties": {
        "trace_level": _list_of(TEXT | {"enum": ["OFF", "TIMESTAMPS"]}) | {"nullable": True},
        **dict.fromkeys(("trace_rate", "trace_count", "log_frequency", "trace_mode"), TEXT | {"nullable": True}),
        "trace_file": TEXT | {"readOnly": True},
    },
}
PATH: dict[str, Schema] = {
    "name": TEXT,
    "repository": TEXT,
    "version": TEXT | {"pattern": "^[0-9]+$"},
    "action": TEXT | {"enum": ["load", "unload"]},
}


@dataclass(frozen=True)
class Operation:
    """What the route table does not hold of an operation.

    Attributes:
        answer: what status 200 comes with; empty: an empty body. None: there is no such status.
        errors: the other statuses that it may end in; 503 while the service stops, if for nothing else.
    """

    name: str
    summary: str
    answer: Content | None
    errors: Sequence[int] = (503,)
    body: Content = field(default_factory=dict)
    parameters: Sequence[Schema] = ()


def _regions(kind: str, region: type[BaseModel], register: type[BaseModel]) -> dict[str, Operation]:
    """What is done with shared memory of a kind."""
    path, regions = f"/v2/{kind}sharedmemory", _json(_list_of(_of(region)))
    return {
        f"GET {path}/status": Operation(
            f"{kind}_regions", f"Every registered region of {kind} shared memory", regions, (403, 503)
        ),
        f"GET {path}/region/{{name}}/status": Operation(
            f"{kind}_region", f"A registered region of {kind} shared memory", regions, (403, 404, 503)
        ),
        f"POST {path}/region/{{name}}/register": Operation(
            f"register_{kind}",
            f"Register a region of {kind} shared memory",
            {},
            (*READ, 403, 404),
            _json(_of(register)),
        ),
        f"POST {path}/unregister": Operation(
            f"unregister_all_{kind}", f"Forget every region of {kind} shared memory", {}, (403, 503)
        ),
        f"POST {path}/region/{{name}}/unregister": Operation(
            f"unregister_{kind}", f"Forget a region of {kind} shared memory", {}, (403, 404, 503)
        ),
    }


def _images(body: type[BaseModel], **options: Schema) -> Content:
    """The ways to send images, as JSON by this body; and what else a form may have."""
    fields = {"images": _list_of(BINARY["schema"]), "model": TEXT, "version": TEXT, **options}
    return {
        "multipart/form-data": {"schema": {"type": "object", "required": ["images"], "properties": fields}},
        **dict.fromkeys(("image/jpeg", "image/png", "image/webp"), BINARY),
        **_json(_of(body)),
    }


VERSION = _parameter("query", "version", TEXT, "Unset: the current one; without a rollout the highest that is ready.")

OPERATIONS = {
    "POST /v1/classify": Operation(
        "classify",
        "Classify images: one object for a raw image, `results` for a form or JSON",
        _json({"oneOf": [_of(ClassificationBody), _of(ResultsBody)]}),
        (*READ, 404, 500),
        _images(ClassifyBody, top_k=TOP_K),
        [
            _parameter("query", "model", TEXT, "Unset: the default model."),
            VERSION,
            _parameter("query", "top_k", TOP_K, "Predictions for each image."),
        ],
    ),
    "POST /v1/embed": Operation(
        "embed",
        "Embed images, for retrieval: one object for a raw image, `results` for a form or JSON",
        _json({"oneOf": [_of(EmbeddingBody), _of(EmbeddingsBody)]}),
        (*READ, 404, 500),
        _images(EmbedBody),
        [_parameter("query", "model", TEXT, "Unset: the only model that gives features."), VERSION],
    ),
    "GET /v1/models": Operation("models", "Every model and its versions", _json(_of(ModelsBody))),
    "GET /v1/models/{name}": Operation("model", "One model and its versions", _json(_of(ModelBody)), (404, 503)),
    "GET /v2/health/live": Operation("live", "Whether the process is alive", _json(_of(LiveBody)), ()),
    "GET /v2/health/ready": Operation("ready", "Whether requests can be answered", _json(_of(ReadyBody))),
    "GET /v2": Operation("server", "The server and its extensions", _json(_of(service_pb2.ServerMetadataResponse))),
    "GET /v2/models/{name}": Operation(
        "metadata", "A model's inputs and outputs", _json(_of(service_pb2.ModelMetadataResponse)), (404, 503)
    ),
    "GET /v2/models/{name}/ready": Operation(
        "model_ready", "Whether a model takes requests", _json(_of(ModelReadyBody)), (404, 503)
    ),
    "GET /v2/models/{name}/config": Operation(
        "config", "A model's config.pbtxt, complete", _json(_of(model_config_pb2.ModelConfig)), (404, 503)
    ),
    "GET /v2/models/{name}/stats": Operation(
        "statistics", "What a model did", _json(_of(service_pb2.ModelStatisticsResponse)), (400, 404, 503)
    ),
    "GET /v2/models/stats": Operation(
        "all_statistics", "What every model did", _json(_of(service_pb2.ModelStatisticsResponse))
    ),
    "POST /v2/models/{name}/infer": Operation(
        "infer",
        "Infer: tensors in the JSON or, in the binary form, behind it",
        {**_json(_of(InferAnswerBody)), "application/octet-stream": BINARY},
        (*READ, 404, 500),
        {**_json(_of(InferBody)), "application/octet-stream": BINARY},
        [
            _parameter(
                "header",
                "Inference-Header-Content-Length",
                {"type": "integer", "minimum": 0},
                "How much of the body is JSON; 0: none, it is the model's one input. Unset: all of it.",
            )
        ],
    ),
    "POST /v2/repository/index": Operation(
        "index",
        "Every model version and its state",
        _json(_list_of(_of(IndexEntryBody))),
        READ,
        _json(_of(IndexBody)),
    ),
    "POST /v2/repository/models/{name}/load": Operation(
        "load", "Load a model, or load it again", {}, (*READ, 403, 404), _json(_of(LoadBody))
    ),
    "POST /v2/repository/models/{name}/unload": Operation("unload", "Unload a model", {}, (*READ, 403, 404)),
    "POST /v2/repository/{repository}/index": Operation(
        "index_of_repository", "Repositories have no names here", None, (404, 501, 503)
    ),
    "POST /v2/repository/{repository}/models/{name}/{action}": Operation(
        "load_from_repository", "Repositories have no names here", None, (404, 501, 503)
    ),
    "GET /v2/logging": Operation("log_settings", "What is logged, and how", _json(LOG_SETTINGS)),
    "POST /v2/logging": Operation(
        "change_log_settings",
        "Change what is logged, and how",
        _json(LOG_SETTINGS),
        (*READ, 403, 501),
        _json(LOG_SETTINGS),
    ),
    "GET /v2/trace/setting": Operation("trace_settings", "What is traced", _json(TRACE_SETTINGS)),
    "POST /v2/trace/setting": Operation(
        "change_trace_settings",
        "Change what is traced; null: as at the start",
        _json(TRACE_SETTINGS),
        (*READ, 403, 501),
        _json(TRACE_SETTINGS),
    ),
    "GET /v2/models/{name}/trace/setting": Operation(
        "trace_settings_of_model", "What is traced of a model", _json(TRACE_SETTINGS), (404, 503)
    ),
    "POST /v2/models/{name}/trace/setting": Operation(
        "change_trace_settings_of_model",
        "Change what is traced of a model; null: as for all",
        _json(TRACE_SETTINGS),
        (*READ, 403, 404, 501),
        _json(TRACE_SETTINGS),
    ),
    **_regions("system", SystemRegionBody, SystemRegisterBody),
    **_regions("cuda", CudaRegionBody, CudaRegisterBody),
}
"""By method and path; a path with a model's version has the words of the one without."""


def docs_routes(version: str, routes: Sequence[Route], *, with_keys: bool = False) -> list[Route | Mount]:
    """Args:
    with_keys: whether requests need an API key.
    """
    description = openapi(version, routes, with_keys=with_keys)
    headers = page_headers(PAGE)

    async def document(request: Request) -> JSONResponse:
        return JSONResponse(description)

    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(PAGE, headers=headers)

    async def root(request: Request) -> RedirectResponse:
        return RedirectResponse("/docs")

    return [
        Route("/", root),
        Route("/docs", page),
        Route("/openapi.json", document),
        Mount("/docs/assets", StaticFiles(directory=swagger_ui_path)),
    ]


def openapi(version: str, routes: Sequence[Route], *, with_keys: bool = False) -> dict[str, Any]:
    """The description of these routes, by OpenAPI 3.0: what the bundled Swagger UI can show."""
    _, bodies = models_json_schema(
        [(body, "validation") for body in BODIES], ref_template=COMPONENTS + "{model}", schema_generator=_Schemas
    )
    components = bodies["$defs"]
    for message in MESSAGES:
        components |= schemas(message.DESCRIPTOR, COMPONENTS)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        for method in (route.methods or set()) - {"HEAD"}:
            operation = _operation(method, route)
            if with_keys and right_for(method, route.path):
                operation["security"] = [{"key": []}]
                operation["responses"] |= _refusals(401, 403)
            paths.setdefault(route.path_format, {})[method.lower()] = operation
    schemes = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}} if with_keys else {}
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "Fovea",
            "version": version,
            "description": "Classifies and embeds images, and infers with tensors, with a model repository's models.",
        },
        "paths": paths,
        "components": {"schemas": components, **schemes},
    }


def _operation(method: str, route: Route) -> dict[str, Any]:
    of_version = "/versions/{version}" in route.path_format
    operation = OPERATIONS[f"{method} {route.path_format.replace('/versions/{version}', '')}"]
    described: dict[str, Any] = {
        "operationId": operation.name + "_of_version" * of_version,
        "summary": operation.summary + ", of one version" * of_version,
        "tags": ["Images" if route.path.startswith("/v1/") else "Open Inference Protocol"],
        "parameters": [
            *(_parameter("path", name, PATH[name], required=True) for name in route.param_convertors),
            *operation.parameters,
        ],
        "responses": _refusals(*sorted(operation.errors)),
    }
    if operation.answer is not None:
        described["responses"]["200"] = {"description": "OK", "content": operation.answer}
    if operation.body:
        described["requestBody"] = {"content": operation.body}
    return described


def _refusals(*statuses: int) -> dict[str, Any]:
    return {str(status): {"description": ERRORS[status], "content": _json(_of(ErrorBody))} for status in statuses}
