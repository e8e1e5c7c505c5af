"""The HTTP API's OpenAPI description, and the page that tries it out with scripts of our own."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from swagger_ui_bundle import swagger_ui_path

from service.rest.schemas import (
    ClassificationBody,
    ClassifyBody,
    ErrorBody,
    LiveBody,
    ModelBody,
    ModelsBody,
    ReadyBody,
    ResultsBody,
)

COMPONENTS = "#/components/schemas/"
BODIES = (ClassificationBody, ClassifyBody, ErrorBody, LiveBody, ModelBody, ModelsBody, ReadyBody, ResultsBody)
IMAGE = {"schema": {"type": "string", "format": "binary"}}
FORM = {
    "type": "object",
    "required": ["images"],
    "properties": {
        "images": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "model": {"type": "string"},
        "version": {"type": "string"},
        "top_k": {"type": "integer", "minimum": 1},
    },
}
CLASSIFY_ERRORS = {
    400: "The request or its image is malformed.",
    404: "No such model or version.",
    413: "The body or its image is too large.",
    415: "No such content type.",
    500: "The model failed on the image.",
    503: "Too busy, not ready or stopping: the same request may succeed later.",
    504: "Not answered in time.",
}
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


def docs_routes(version: str) -> list[Route | Mount]:
    description = openapi(version)

    async def document(request: Request) -> JSONResponse:
        return JSONResponse(description)

    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(PAGE)

    async def root(request: Request) -> RedirectResponse:
        return RedirectResponse("/docs")

    return [
        Route("/", root),
        Route("/docs", page),
        Route("/openapi.json", document),
        Mount("/docs/assets", StaticFiles(directory=swagger_ui_path)),
    ]


def openapi(version: str) -> dict[str, Any]:
    """The description, by OpenAPI 3.0: what the bundled Swagger UI can show."""
    _, schemas = models_json_schema([(body, "serialization") for body in BODIES], ref_template=COMPONENTS + "{model}")
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "Fovea",
            "version": version,
            "description": "Classifies images with the models of a model repository.",
        },
        "paths": {
            "/v1/classify": {"post": _classify()},
            "/v1/models": {"get": _get("models", "Every model and its versions", {200: ModelsBody})},
            "/v1/models/{name}": {
                "get": _get("model", "One model", {200: ModelBody, 404: ErrorBody}) | {"parameters": [name]}
            },
            "/v2/health/live": {"get": _get("live", "Whether the process is alive", {200: LiveBody})},
            "/v2/health/ready": {
                "get": _get("ready", "Whether requests can be answered", {200: ReadyBody, 503: ReadyBody})
            },
        },
        "components": {"schemas": schemas["$defs"]},
    }


def _classify() -> dict[str, Any]:
    text = {"type": "string"}
    answer = {"oneOf": [{"$ref": COMPONENTS + "ClassificationBody"}, {"$ref": COMPONENTS + "ResultsBody"}]}
    content = {
        "multipart/form-data": {"schema": FORM},
        "image/jpeg": IMAGE,
        "image/png": IMAGE,
        "image/webp": IMAGE,
        "application/json": {"schema": {"$ref": COMPONENTS + "ClassifyBody"}},
    }
    return {
        "operationId": "classify",
        "summary": "Classify images",
        "parameters": [
            _query("model", "Unset: the default model.", text),
            _query("version", "Unset: the highest version that is ready.", text),
            _query("top_k", "Predictions for each image.", {"type": "integer", "minimum": 1, "default": 5}),
        ],
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {
                "description": "One object for a raw image body; `results` for a form or JSON.",
                "content": {"application/json": {"schema": answer}},
            }
        }
        | {str(status): _response(text, ErrorBody) for status, text in CLASSIFY_ERRORS.items()},
    }


def _query(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _get(operation: str, summary: str, bodies: dict[int, type]) -> dict[str, Any]:
    responses = {str(status): _response("OK" if status == 200 else "Not so.", body) for status, body in bodies.items()}
    return {"operationId": operation, "summary": summary, "responses": responses}


def _response(description: str, body: type) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": COMPONENTS + body.__name__}}},
    }
