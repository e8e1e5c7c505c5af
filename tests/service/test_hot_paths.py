from __future__ import annotations

import httpx
import pytest

CLASSIFY, EMBED, INFER = "/v1/classify", "/v1/embed", "/v2/models/colours/infer"


@pytest.mark.parametrize("path", [CLASSIFY, EMBED, INFER, "/v2/models/colours/versions/1/infer"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods_are_refused_as_everywhere(http: httpx.Client, method: str, path: str) -> None:
    response = http.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.json() == {"error": f"{method} {path}: Method Not Allowed"}


@pytest.mark.parametrize(
    "path", [CLASSIFY + "/", EMBED + "/", INFER + "/", INFER + "x", "/v2/models/colours/versions/x/infer"]
)
def test_a_path_that_is_nearly_one_of_them_is_not_found(http: httpx.Client, path: str) -> None:
    response = http.post(path)
    assert (response.status_code, response.json()) == (404, {"error": f"POST {path}: Not Found"})


def test_a_name_and_a_version_are_taken_from_the_path(http: httpx.Client) -> None:
    response = http.post("/v2/models/a%20b/versions/7/infer", content=b"{}")
    assert (response.status_code, response.json()) == (
        404,
        {"error": "Request for unknown model: 'a b' is not found"},
    )


def test_an_error_of_a_hot_path_is_answered_in_the_one_form(http: httpx.Client) -> None:
    response = http.post(INFER, content=b"{", headers={"x-request-id": "mine"})
    assert (response.status_code, response.headers["x-request-id"]) == (400, "mine")
    assert response.json()["error"].startswith("failed to parse the request JSON buffer")


def test_an_answer_without_a_body_arrives(http: httpx.Client) -> None:
    response = http.head("/v2/health/live")
    assert (response.status_code, response.content) == (200, b"")
