"""Web pages of other origins, and what a browser is told of our own."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator

import httpx
import pytest
from starlette.applications import Starlette

from service.api_keys import Right, line_of, new_key
from service.errors import StartError
from service.rest.cors import cors
from tests.repositories import picture, write_model
from tests.service.launch import RunningService, running
from tests.service.test_authentication import JSON, TENSOR

ORIGIN = "https://example.com"
INFER_HEADERS = {"inference-header-content-length": str(len(JSON)), "content-type": "application/octet-stream"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningService, dict[str, str]]]:
    """A service for pages of one origin; and a header with a key of it."""
    folder = tmp_path_factory.mktemp("cors")
    write_model(folder / "models")
    key = new_key()
    (folder / "keys").write_text(line_of("page", (Right.INFER,), key))
    origins = f"{ORIGIN}, http://localhost:3000"
    with running(folder / "models", api_keys=folder / "keys", cors_origins=origins) as service:
        yield service, {"authorization": f"Bearer {key}"}


def test_unasked_no_page_of_another_origin_is_let_in(http: httpx.Client) -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": "POST"}
    for answer in (
        http.options("/v1/classify", headers=asked),
        http.get("/v1/models", headers=asked),
        http.post("/v2/models/colours/infer", content=JSON + TENSOR.tobytes(), headers=INFER_HEADERS | asked),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("origin", "allowed"), [(ORIGIN, True), ("http://localhost:3000", True), ("https://evil.example", False)]
)
def test_pages_of_the_origins_that_are_set_are_let_in(
    shared: tuple[RunningService, dict[str, str]], origin: str, allowed: bool
) -> None:
    service, key = shared
    expected = origin if allowed else None
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, content-type"}
    with httpx.Client(base_url=service.http, timeout=60, headers={"origin": origin}) as client:
        client.headers.pop("accept-encoding")
        preflight = client.options("/v1/classify", headers=asked)
        assert (preflight.status_code == 200) == allowed
        assert preflight.headers.get("access-control-allow-origin") == expected
        refused = client.get("/v1/models")
        classified = client.post("/v1/classify", content=picture("red"), headers=key | {"content-type": "image/jpeg"})
        body = JSON + TENSOR.tobytes()
        # The last of these would be answered from the connection, but for its origin.
        infer = [client.post("/v2/models/colours/infer", content=body, headers=key | INFER_HEADERS) for _ in range(3)]
        assert [answer.status_code for answer in (refused, classified, *infer)] == [401, 200, 200, 200, 200]
        for answer in (refused, classified, *infer):
            assert answer.headers.get("access-control-allow-origin") == expected
            assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origins", ["example.com", "https://example.com/", "https://example.com/page", "null", ",", "https://*"]
)
def test_what_is_no_origin_is_a_failed_start(origins: str) -> None:
    with pytest.raises(StartError, match="is no origin"):
        cors(Starlette(), origins)


# What every answer and the page say


def test_every_answer_is_taken_for_what_it_says_it_is(http: httpx.Client) -> None:
    http.headers.pop("accept-encoding")
    body = JSON + TENSOR.tobytes()
    answers = [http.post("/v2/models/colours/infer", content=body, headers=INFER_HEADERS) for _ in range(3)]
    answers += [http.get(path) for path in ("/docs", "/docs/assets/swagger-ui.css", "/openapi.json", "/nowhere")]
    answers += [http.post("/v1/classify", content=b"no image"), http.put("/v1/models")]
    assert {answer.status_code for answer in answers} >= {200, 404, 405}
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_runs_its_own_scripts_only_and_in_no_frame(http: httpx.Client) -> None:
    page = http.get("/docs")
    policy = dict(part.split(" ", 1) for part in page.headers["content-security-policy"].split("; "))
    assert (policy["default-src"], policy["frame-ancestors"], policy["base-uri"]) == ("'none'", "'none'", "'none'")
    (script,) = re.findall(r"<script>(.*?)</script>", page.text)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy["script-src"] == f"'self' 'sha256-{digest}'"
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["referrer-policy"] == "no-referrer"
