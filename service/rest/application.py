"""The HTTP application: its routes, its one form of error, and the page that tries it out."""

from __future__ import annotations

import logging

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from swagger_ui_bundle import swagger_ui_path

from service.classifier import Classifier
from service.errors import FoveaError
from service.lifecycle import Lifecycle
from service.repository import Repository
from service.rest.classify import classify_router
from service.rest.operations import operations_router
from service.rest.scope import RequestScope
from service.telemetry import Telemetry

log = logging.getLogger("fovea.http")


def create_http_application(
    classifier: Classifier,
    repository: Repository,
    telemetry: Telemetry,
    lifecycle: Lifecycle,
    *,
    version: str,
    request_timeout_s: float,
    max_request_bytes: int,
    max_images: int,
) -> ASGIApp:
    application = FastAPI(
        title="Fovea",
        version=version,
        description="Classifies images with the models of a model repository.",
        docs_url=None,
        redoc_url=None,
    )
    application.include_router(
        classify_router(
            classifier,
            telemetry,
            request_timeout_s=request_timeout_s,
            max_request_bytes=max_request_bytes,
            max_images=max_images,
        )
    )
    application.include_router(operations_router(repository, lifecycle))
    application.mount("/docs/assets", StaticFiles(directory=swagger_ui_path))

    @application.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Fovea",
            swagger_js_url="/docs/assets/swagger-ui-bundle.js",
            swagger_css_url="/docs/assets/swagger-ui.css",
            swagger_favicon_url="/docs/assets/favicon-32x32.png",
        )

    @application.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    @application.exception_handler(FoveaError)
    async def on_fovea_error(request: Request, error: FoveaError) -> JSONResponse:
        headers = {"retry-after": str(error.retry_after_s)} if error.retry_after_s else None
        return JSONResponse({"error": str(error)}, status_code=error.http_status, headers=headers)

    @application.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> JSONResponse:
        text = f"{request.method} {request.url.path}: {error.detail}"
        return JSONResponse({"error": text}, status_code=error.status_code, headers=error.headers)

    @application.exception_handler(RequestValidationError)
    async def on_invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, status_code=400)

    @application.exception_handler(Exception)
    async def on_bug(request: Request, error: Exception) -> JSONResponse:
        log.exception("internal error", exc_info=error)
        return JSONResponse({"error": "internal error; the log has the details"}, status_code=500)

    return RequestScope(application, lifecycle)
