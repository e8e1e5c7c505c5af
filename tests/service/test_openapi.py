"""The description of the HTTP API, and the page that shows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.rest.application import create_http_application
from service.rest.openapi import OPERATIONS, docs_routes, openapi
from service.rest.scope import RequestScope

NOTHING = cast(Any, None)


def application_routes() -> list[Any]:
    """Every route that the service has, documentation included."""
    application = create_http_application(
        *[NOTHING] * 12, version="0", request_timeout_s=1, max_request_bytes=1, max_images=1
    )
    assert isinstance(application, RequestScope)
    return cast(list[Any], cast(Any, application._app)._others.routes)


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def operations(document: Any) -> dict[str, Any]:
    """By method and path."""
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_every_route_is_described_and_nothing_else(http: httpx.Client) -> None:
    pages = {route.path for route in docs_routes("0", [])}
    routes = [route for route in application_routes() if route.path not in pages]
    assert operations(http.get("/openapi.json").json()).keys() == {
        f"{method} {route.path_format}" for route in routes for method in route.methods - {"HEAD"}
    }
    assert len(routes) > 20


def test_every_description_has_a_route(http: httpx.Client) -> None:
    described = operations(http.get("/openapi.json").json())
    assert OPERATIONS.keys() == {name.replace("/versions/{version}", "") for name in described}


def test_a_route_without_a_description_is_refused() -> None:
    async def endpoint(request: Request) -> Response:
        return Response()

    with pytest.raises(KeyError, match="GET /v2/new"):
        openapi("0", [Route("/v2/new", endpoint)])


def test_the_description_holds_together(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.0.")
    assert document["info"].keys() >= {"title", "version"}
    found = set(references(document))
    assert found
    for reference in found:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    described = operations(document)
    assert len({operation["operationId"] for operation in described.values()}) == len(described)
    for name, operation in described.items():
        assert operation["responses"], name
        for status, response in operation["responses"].items():
            assert status.isdecimal()
            assert response["description"]
        in_path = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", name))
    classify = described["POST /v1/classify"]
    assert classify["requestBody"]["content"].keys() >= {"multipart/form-data", "image/jpeg", "application/json"}
    assert {parameter["name"] for parameter in classify["parameters"]} == {"model", "version", "top_k"}


def test_it_is_of_openapi_3_0(http: httpx.Client) -> None:
    """Where null is no type: the bundled Swagger UI knows no later one."""
    assert '"null"' not in http.get("/openapi.json").text


def test_the_page_needs_nothing_from_elsewhere(http: httpx.Client) -> None:
    assert http.get("/", follow_redirects=True).url.path == "/docs"
    page = http.get("/docs")
    assert page.status_code == 200
    assert "text/html" in page.headers["content-type"]
    assert "//" not in re.sub(r"<!--.*?-->", "", page.text)
    linked = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
    assert len(linked) >= 2
    assert any(url.endswith(".js") for url in linked)
    assert any(url.endswith(".css") for url in linked)
    for url in [*linked, "/openapi.json"]:
        assert url.startswith("/")
        asset = http.get(url)
        assert asset.status_code == 200, url
        assert asset.content
