"""The HTTP API, by real requests to a real service."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.repositories import LABELS, picture
from tests.service.conftest import MAX_IMAGE_BYTES, MAX_IMAGE_FRAMES, MAX_IMAGES, MAX_REQUEST_BYTES
from tests.service.launch import RunningService, wait_for_metric
from tests.service.pictures import hostile_images

RED, GREEN, BLUE = picture("red"), picture("lime"), picture("blue")
JPEG = {"content-type": "image/jpeg"}
HOSTILE = hostile_images(MAX_IMAGE_BYTES, MAX_IMAGE_FRAMES)


def encoded(*images: bytes) -> list[str]:
    return [base64.b64encode(image).decode() for image in images]


def post_image(http: httpx.Client, image: bytes = RED, **query: str | int) -> httpx.Response:
    return http.post("/v1/classify", content=image, headers=JPEG, params=query)


def post_json(http: httpx.Client, **body: Any) -> httpx.Response:
    return http.post("/v1/classify", json=body)


def post_form(http: httpx.Client, *images: bytes, **fields: str) -> httpx.Response:
    files = [("images", (f"{number}.jpg", image, "image/jpeg")) for number, image in enumerate(images)]
    return http.post("/v1/classify", files=files, data=fields)


def tops(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [result["predictions"][0]["label"] for result in response.json()["results"]]


def error_of(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"]
    return str(body["error"])


# Images in, three ways


@pytest.mark.parametrize("media_type", ["image/jpeg", "image/png", "image/anything", "application/octet-stream"])
def test_a_raw_body_is_answered_by_one_object(http: httpx.Client, media_type: str) -> None:
    response = http.post("/v1/classify", content=RED, headers={"content-type": media_type})
    assert response.status_code == 200
    body = response.json()
    assert body.keys() == {"model", "version", "predictions", "timings"}
    assert (body["model"], body["version"]) == ("colours", "3")
    assert [p["label"] for p in body["predictions"]] == ["red", "green", "blue"]
    assert [p["index"] for p in body["predictions"]] == [0, 1, 2]
    assert sum(p["probability"] for p in body["predictions"]) == pytest.approx(1, abs=1e-5)
    assert body["timings"].keys() == {"decode_us", "queue_us", "inference_us", "total_us", "batch_size"}
    assert all(isinstance(value, int) for value in body["timings"].values())
    assert body["timings"]["total_us"] >= body["timings"]["inference_us"] > 0
    assert body["timings"]["batch_size"] == 1


def test_a_form_of_one_file_is_answered_by_results(http: httpx.Client) -> None:
    assert tops(post_form(http, BLUE)) == ["blue"]


def test_a_form_of_several_files_keeps_their_order(http: httpx.Client) -> None:
    assert tops(post_form(http, RED, GREEN, BLUE, RED)) == ["red", "green", "blue", "red"]


def test_a_form_may_name_its_files_as_it_likes(http: httpx.Client) -> None:
    files = [("a", ("a.png", GREEN, "image/png")), ("b", ("b", RED, "application/pdf"))]
    assert tops(http.post("/v1/classify", files=files)) == ["green", "red"]


def test_json_is_answered_by_results(http: httpx.Client) -> None:
    assert tops(post_json(http, images=encoded(GREEN))) == ["green"]
    assert tops(post_json(http, images=encoded(BLUE, RED))) == ["blue", "red"]


def test_as_many_images_as_allowed(http: httpx.Client) -> None:
    colours = [RED, GREEN, BLUE, BLUE] * (MAX_IMAGES // 4)
    assert tops(post_form(http, *colours)) == ["red", "green", "blue", "blue"] * (MAX_IMAGES // 4)


def test_one_bad_image_leaves_its_neighbours_alone(http: httpx.Client) -> None:
    form = post_form(http, RED, b"nonsense", BLUE)
    in_json = post_json(http, images=[*encoded(RED), "%%%", *encoded(b"nonsense", BLUE)])
    assert (form.status_code, in_json.status_code) == (200, 200)
    first, bad, last = form.json()["results"]
    assert (first["predictions"][0]["label"], last["predictions"][0]["label"]) == ("red", "blue")
    assert bad.keys() == {"error"}
    assert bad["error"].startswith("image 2 of 3: not an image: must be one of JPEG")
    first, not_base64, bad, last = in_json.json()["results"]
    assert (first["predictions"][0]["label"], last["predictions"][0]["label"]) == ("red", "blue")
    assert not_base64["error"].startswith("image 2 of 4: not base64")
    assert bad["error"].startswith("image 3 of 4: not an image")


def test_a_form_whose_only_image_is_bad_is_well_formed(http: httpx.Client) -> None:
    response = post_form(http, b"nonsense")
    assert response.status_code == 200
    assert "not an image" in response.json()["results"][0]["error"]


# Model, version, top_k


@pytest.mark.parametrize("version", ["1", "3"])
def test_a_version_is_chosen_in_each_form(http: httpx.Client, version: str) -> None:
    assert post_image(http, version=version).json()["version"] == version
    for response in (
        post_form(http, RED, version=version, model="colours"),
        post_json(http, images=encoded(RED), version=version, model="colours"),
    ):
        assert response.json()["results"][0]["version"] == version


def test_the_query_counts_for_forms_and_json_too(http: httpx.Client) -> None:
    for content in ({"json": {"images": encoded(RED)}}, {"files": {"image": RED}}):
        response = http.post("/v1/classify", params={"version": "1", "top_k": 2}, **content)
        (result,) = response.json()["results"]
        assert (result["version"], len(result["predictions"])) == ("1", 2)


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (2, 2), (3, 3), (999, 3)])
def test_top_k(http: httpx.Client, top_k: int, count: int) -> None:
    assert len(post_image(http, top_k=top_k).json()["predictions"]) == count
    assert len(post_form(http, RED, top_k=str(top_k)).json()["results"][0]["predictions"]) == count
    assert len(post_json(http, images=encoded(RED), top_k=top_k).json()["results"][0]["predictions"]) == count


@pytest.mark.parametrize("top_k", ["0", "-1", "two", "1.5", "", "9" * 100, "٣"])
def test_a_wrong_top_k(http: httpx.Client, top_k: str) -> None:
    assert "top_k is " in error_of(post_image(http, top_k=top_k), 400)
    assert "top_k is " in error_of(post_form(http, RED, top_k=top_k), 400)


@pytest.mark.parametrize("top_k", [0, -1, "2", 1.5, True, [1]])
def test_a_wrong_top_k_in_json(http: httpx.Client, top_k: object) -> None:
    assert "top_k" in error_of(post_json(http, images=encoded(RED), top_k=top_k), 400)


def test_a_wrong_top_k_in_the_query_is_wrong_beside_a_right_one(http: httpx.Client) -> None:
    for content in ({"json": {"images": encoded(RED), "top_k": 2}}, {"files": {"image": RED}, "data": {"top_k": "2"}}):
        assert "top_k is " in error_of(http.post("/v1/classify", params={"top_k": 0}, **content), 400)
        assert http.post("/v1/classify", params={"top_k": 1}, **content).status_code == 200


def test_an_unknown_model(http: httpx.Client) -> None:
    text = "Request for unknown model: 'x' is not found"
    for response in (
        post_image(http, model="x"),
        post_form(http, RED, model="x"),
        post_json(http, images=encoded(RED), model="x"),
        http.get("/v1/models/x"),
    ):
        assert error_of(response, 404).startswith(text)


@pytest.mark.parametrize("version", ["2", "latest", "-1", "03", "../1"])
def test_an_unknown_version(http: httpx.Client, version: str) -> None:
    error = error_of(post_image(http, version=version), 404)
    shown = version if version.isdecimal() else repr(version)
    assert error == f"Request for unknown model: 'colours' version {shown} is not found"


def test_no_model_named_where_there_are_several(broken_service: RunningService) -> None:
    with httpx.Client(base_url=broken_service.http) as http:
        error = error_of(post_image(http), 400)
        assert (
            error
            == "no model named: must be one of colours, labels, logits, nan, no_config, no_graph, no_version, pixels"
        )
        assert post_image(http, model="colours").status_code == 200


def test_the_default_model_of_the_settings(slow_service: RunningService) -> None:
    with httpx.Client(base_url=slow_service.http, timeout=60) as http:
        assert post_image(http).json()["model"] == "slow"
        assert post_image(http, model="colours").json()["model"] == "colours"


# What is refused


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/xml", "application/x-www-form-urlencoded", "", "nonsense"]
)
def test_a_content_type_that_is_not_taken(http: httpx.Client, content_type: str) -> None:
    response = http.post("/v1/classify", content=RED, headers={"content-type": content_type})
    error = error_of(response, 415)
    assert f"content type {content_type!r}: must be image/*, multipart/form-data or application/json" in error


def test_no_content_type(http: httpx.Client) -> None:
    assert "content type" in error_of(http.post("/v1/classify", content=RED), 415)


def test_content_types_are_compared_as_they_should_be(http: httpx.Client) -> None:
    for content_type in ("IMAGE/JPEG", "image/jpeg ; charset=binary"):
        assert http.post("/v1/classify", content=RED, headers={"content-type": content_type}).status_code == 200
    content_type = "Application/JSON; charset=utf-8"
    body = json.dumps({"images": encoded(RED)})
    assert http.post("/v1/classify", content=body, headers={"content-type": content_type}).status_code == 200


def test_a_body_that_says_it_is_too_large_is_refused_unread(service: RunningService) -> None:
    host, port = service.http.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(
            b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\n"
            + f"content-length: {MAX_REQUEST_BYTES + 1}\r\n\r\n".encode()
        )
        answer = b""
        while b"}" not in answer:
            answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert f"larger than {MAX_REQUEST_BYTES} bytes".encode() in answer


def test_a_chunked_body_is_counted(http: httpx.Client) -> None:
    def chunks(count: int) -> Iterator[bytes]:
        yield RED
        for _ in range(count):
            yield bytes(2**20)

    within = http.post("/v1/classify", content=chunks(6), headers=JPEG)
    assert within.status_code == 200
    above = http.post("/v1/classify", content=chunks(MAX_REQUEST_BYTES // 2**20), headers=JPEG)
    assert f"larger than {MAX_REQUEST_BYTES} bytes" in error_of(above, 413)


def test_too_many_images(http: httpx.Client) -> None:
    error = error_of(post_json(http, images=encoded(*[RED] * (MAX_IMAGES + 1))), 413)
    assert f"{MAX_IMAGES + 1} images: a request may have at most {MAX_IMAGES}" in error
    form = post_form(http, *[RED] * (MAX_IMAGES + 1))
    assert form.status_code in (400, 413)
    assert str(MAX_IMAGES) in form.json()["error"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "EOF"),
        (b"{", "EOF"),
        (b"null", "object"),
        (b"[]", "object"),
        (b'"image"', "object"),
        (b"{}", "images: Field required"),
        (b'{"images": null}', "images: "),
        (b'{"images": "abcd"}', "images: "),
        (b'{"images": [1]}', "images.0: "),
        (b'{"images": []}', "no images"),
        (b'{"images": ["abcd"], "modell": "x"}', "modell: "),
        (b'{"images": ["abcd"], "model": 7}', "model: "),
        (b'{"images": ["abcd"], "version": 1}', "version: "),
        (b'{"images": ["\xff"]}', "unicode|UTF-8|utf-8"),
        (b'{"images": ["\\ud800"]}', "hex escape"),
        (b"[" * 100_000, "recursion"),
        (b'{"images": ' + b"[" * 100_000, "recursion"),
        (b'{"images": [NaN]}', "JSON body"),
        (b'{"images": ["abcd"]}{"images": ["abcd"]}', "trailing"),
        (RED, "JSON body"),
    ],
)
def test_malformed_json(http: httpx.Client, content: bytes, reason: str) -> None:
    response = http.post("/v1/classify", content=content, headers={"content-type": "application/json"})
    assert re.search(reason, error_of(response, 400)), response.text
    assert post_image(http).status_code == 200


BOUNDARY = "multipart/form-data; boundary=x"
FILE = b'--x\r\ncontent-disposition: form-data; name="a"; filename="a.jpg"\r\n\r\n' + RED


@pytest.mark.parametrize(
    ("content_type", "content", "reason"),
    [
        ("multipart/form-data", FILE, "boundary"),
        (BOUNDARY, b"", "no images|multipart"),
        (BOUNDARY, b"no boundary at all", "multipart"),
        (BOUNDARY, RED, "multipart"),
        (BOUNDARY, b"--x--\r\n", "no images"),
        (BOUNDARY, FILE, "closing boundary"),
        (BOUNDARY, FILE + b"\r\n" + FILE, "closing boundary"),
        (BOUNDARY, b"--x\r\n\r\nno headers\r\n--x--\r\n", "Content-Disposition|disposition"),
        (BOUNDARY, b"--x\r\ncontent-disposition: form-data\r\n\r\na\r\n--x--\r\n", "name"),
        (BOUNDARY, b"--x\r\nbad header\r\n\r\na\r\n--x--\r\n", "multipart"),
        (
            BOUNDARY,
            b'--x\r\ncontent-disposition: form-data; name="image"\r\n\r\nabc\r\n--x--\r\n',
            "'image'.*file name",
        ),
        (
            BOUNDARY,
            b'--x\r\ncontent-disposition: form-data; name="top_k"\r\n\r\n' + b"9" * 2**21 + b"\r\n--x--\r\n",
            "multipart",
        ),
        (BOUNDARY, b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\na\r\n' * 20 + b"--x--\r\n", "16"),
        (BOUNDARY, b"--x\r\n" + b"a: b\r\n" * 10_000 + b"\r\n--x--\r\n", "multipart"),
        (BOUNDARY, b"--x\r\n" + b"a" * 100_000 + b": b\r\n\r\n--x--\r\n", "multipart"),
    ],
)
def test_malformed_forms(http: httpx.Client, content_type: str, content: bytes, reason: str) -> None:
    response = http.post("/v1/classify", content=content, headers={"content-type": content_type})
    assert re.search(reason, error_of(response, 400)), response.text
    assert post_image(http).status_code == 200


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_images(http: httpx.Client, name: str) -> None:
    content, reason, too_large = HOSTILE[name]
    response = post_image(http, content)
    assert re.search(reason, error_of(response, 413 if too_large else 400)), response.text
    assert post_image(http).json()["predictions"][0]["label"] == "red"


def test_hostile_images_among_good_ones(http: httpx.Client) -> None:
    bad = {name: found for name, found in HOSTILE.items() if len(found[0]) < 2**20}
    images = [image for content, _, _ in bad.values() for image in (content, GREEN)]
    results = post_form(http, *images[:MAX_IMAGES]).json()["results"]
    assert all(result["predictions"][0]["label"] == "green" for result in results[1::2])
    for (_, reason, _), result in zip(bad.values(), results[::2], strict=False):
        assert re.search(reason, result["error"])


@pytest.mark.parametrize(
    "request_head",
    [
        b"nonsense\r\n\r\n",
        b"POST /v1/classify HTTP/9.9\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
        b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
        bytes(range(256)) * 10,
    ],
)
def test_what_is_not_http(service: RunningService, http: httpx.Client, request_head: bytes) -> None:
    host, port = service.http.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request_head)
        assert b" 400 " in connection.recv(65536).partition(b"\r\n")[0]
    assert post_image(http).status_code == 200


def test_a_long_model_name_is_refused_in_few_words(http: httpx.Client) -> None:
    error = error_of(post_json(http, images=encoded(RED), model="x" * 2**20), 404)
    assert error.startswith("Request for unknown model: 'xxx")
    assert len(error) < 10_000


def test_other_paths_and_methods_have_errors_of_the_same_form(http: httpx.Client) -> None:
    assert "/v1/nothing" in error_of(http.get("/v1/nothing"), 404)
    wrong = http.get("/v1/classify")
    assert "GET /v1/classify: Method Not Allowed" in error_of(wrong, 405)
    assert "POST" in wrong.headers["allow"]
    assert "POST /v1/models" in error_of(http.post("/v1/models"), 405)
    error_of(http.get("/docs/assets/../../../../etc/passwd"), 404)
    error_of(http.get("/docs/assets/%2e%2e/%2e%2e/__init__.py"), 404)


# Around the request


def test_a_request_id_is_returned(http: httpx.Client) -> None:
    for response in (
        http.post("/v1/classify", content=RED, headers=JPEG | {"x-request-id": "abc-123"}),
        http.post("/v1/classify", content=b"", headers=JPEG | {"x-request-id": "abc-123"}),
        http.get("/v1/models", headers={"x-request-id": "abc-123"}),
        http.get("/nothing", headers={"x-request-id": "abc-123"}),
    ):
        assert response.headers.get_list("x-request-id") == ["abc-123"]


def test_a_request_id_is_made_where_none_is_given(http: httpx.Client) -> None:
    first, second = (post_image(http).headers["x-request-id"] for _ in range(2))
    assert first != second
    assert re.fullmatch("[0-9a-f]{32}", first)


@pytest.mark.parametrize("unfit", [b"x" * 129, b"\xc3\xa9", b"a\tb", b""])
def test_an_unfit_request_id_is_replaced(http: httpx.Client, unfit: bytes) -> None:
    response = http.get("/v2/health/live", headers=[(b"x-request-id", unfit)])
    assert re.fullmatch("[0-9a-f]{32}", response.headers["x-request-id"])


def test_health(http: httpx.Client) -> None:
    assert (http.get("/v2/health/live").status_code, http.get("/v2/health/live").json()) == (200, {"live": True})
    assert (http.get("/v2/health/ready").status_code, http.get("/v2/health/ready").json()) == (200, {"ready": True})


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready"])
def test_health_is_on_the_metrics_port_too(service: RunningService, http: httpx.Client, path: str) -> None:
    """For probes, which have neither key nor certificate."""
    on_metrics = httpx.get(service.metrics.removesuffix("/metrics") + path)
    assert (on_metrics.status_code, on_metrics.json()) == (200, http.get(path).json())


def test_models(http: httpx.Client) -> None:
    model = http.get("/v1/models/colours").json()
    assert http.get("/v1/models").json() == {"models": [model]}
    assert (model["name"], model["reason"], [v["version"] for v in model["versions"]]) == ("colours", "", ["1", "3"])
    version = model["versions"][0]
    assert version["instances"] >= 1
    assert version == {
        "version": "1",
        "state": "READY",
        "reason": "",
        "proven": True,
        "execution_provider": "CPUExecutionProvider",
        "instances": version["instances"],
        "max_batch_size": 8,
        "largest_batch": 8,
        "input_shape": [8, 8, 3],
        "labels": list(LABELS),
        "features": 0,
    }


BROKEN = {
    "no_config": "config.pbtxt: 1:17",
    "labels": "labels.txt: 4 labels for 3 classes",
    "pixels": "golden sample: preprocessing differs from training",
    "logits": "golden sample: logits differ",
    "nan": "not finite",
    "no_version": "no version folder",
    "no_graph": "ONNX Runtime cannot load",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_shows_its_reason(broken_service: RunningService, name: str) -> None:
    with httpx.Client(base_url=broken_service.http) as http:
        model = http.get(f"/v1/models/{name}").json()
        shown = [model["reason"], *[version["reason"] for version in model["versions"]]]
        assert BROKEN[name] in "".join(shown)
        assert all(version["state"] == "UNAVAILABLE" for version in model["versions"])
        ready = http.get("/v2/health/ready")
        assert ready.status_code == 503
        assert ready.json()["ready"] is False
        assert BROKEN[name] in ready.json()["error"]
        on_metrics = httpx.get(broken_service.metrics.removesuffix("/metrics") + "/v2/health/ready")
        assert (on_metrics.status_code, on_metrics.json()) == (503, ready.json())
        assert f"model '{name}' is not ready: " in error_of(post_image(http, model=name), 503)
        assert BROKEN[name] in broken_service.stderr()
        assert f"NOT READY: {name}" in broken_service.announcement


def test_the_model_beside_broken_ones_is_served(broken_service: RunningService) -> None:
    with httpx.Client(base_url=broken_service.http) as http:
        assert http.get("/v2/health/live").status_code == 200
        assert http.get("/v1/models/colours").json()["versions"][0]["state"] == "READY"
        assert post_image(http, GREEN, model="colours").json()["predictions"][0]["label"] == "green"


# The description and its page


# A slow model: overload, disconnects, fairness


def slow_image(http: httpx.AsyncClient, model: str = "slow") -> asyncio.Task[httpx.Response]:
    return asyncio.create_task(http.post("/v1/classify", params={"model": model}, content=RED, headers=JPEG))


async def test_overload_is_refused_at_once_and_passes(slow_service: RunningService) -> None:
    rejected = slow_service.metric("fovea_requests_rejected_total", protocol="http")
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=slow_service.http, timeout=60, limits=limits) as http:
        responses = await asyncio.gather(*[slow_image(http) for _ in range(40)])
        codes = [response.status_code for response in responses]
        assert set(codes) == {200, 503}
        assert codes.count(200) >= 8
        refused = next(response for response in responses if response.status_code == 503)
        assert refused.headers["retry-after"] == "1"
        assert refused.json() == {"error": "Exceeds maximum queue size: 8 rows are waiting"}
        assert (await slow_image(http)).status_code == 200
    counted = slow_service.metric("fovea_requests_rejected_total", protocol="http") - rejected
    assert counted == codes.count(503)


async def test_a_client_that_goes_away_while_it_sends(service: RunningService) -> None:
    """No answer, no inference and no alarm in the log."""
    host, port = service.http.removeprefix("http://").split(":")
    batches = service.metric("fovea_batch_size_count")
    failed = service.metric("fovea_requests_total", protocol="http", code="500")
    gone = service.metric("fovea_requests_total", protocol="http", code="499")
    for content_type in (b"image/jpeg", b"multipart/form-data; boundary=x", b"application/json"):
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(
                b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\ncontent-type: "
                + content_type
                + b"\r\n\r\n--x\r\n"
            )
            await wait_for_metric(service, 1, "fovea_requests_in_flight", protocol="http")
    await wait_for_metric(service, gone + failed + 3, "fovea_requests_total", protocol="http", code="499")
    assert service.metric("fovea_requests_total", protocol="http", code="500") == failed
    assert service.metric("fovea_batch_size_count") == batches
    assert "internal error" not in service.stderr()
    assert "Traceback" not in service.stderr()


async def test_many_images_do_not_starve_a_single_one(slow_service: RunningService) -> None:
    async with httpx.AsyncClient(base_url=slow_service.http, timeout=60) as http:
        count = 24
        body = {"images": encoded(*[GREEN] * count), "model": "slower"}
        many = asyncio.create_task(http.post("/v1/classify", json=body))
        await wait_for_metric(slow_service, 1, "fovea_requests_in_flight", protocol="http")
        images = slow_service.metric("fovea_batch_size_sum", model="slower")
        single = await slow_image(http, "slower")
        assert not many.done()
        assert slow_service.metric("fovea_batch_size_sum", model="slower") - images < count
        assert single.status_code == 200
        results = (await many).json()["results"]
        assert [result["predictions"][0]["label"] for result in results] == ["green"] * count


async def test_requests_in_flight_together_share_batches(service: RunningService) -> None:
    async with httpx.AsyncClient(base_url=service.http, timeout=60) as http:
        colours = [RED, GREEN, BLUE] * 50
        responses = await asyncio.gather(
            *[http.post("/v1/classify", content=colour, headers=JPEG) for colour in colours]
        )
        assert [r.json()["predictions"][0]["label"] for r in responses] == ["red", "green", "blue"] * 50


# Metrics


def test_the_metrics_page(service: RunningService, http: httpx.Client) -> None:
    labels = {"model": "colours", "version": "3"}
    stages = ("decode", "queue", "batch_assembly", "inference", "postprocessing", "total")

    def observed() -> dict[str, float]:
        return {
            **{stage: service.metric("fovea_stage_duration_seconds_count", stage=stage, **labels) for stage in stages},
            "ok": service.metric("fovea_requests_total", protocol="http", model="colours", code="200"),
            "images": service.metric("fovea_batch_size_sum", **labels),
            "bad": service.metric("fovea_requests_total", protocol="http", code="400"),
        }

    before = observed()
    assert tops(post_form(http, RED, BLUE, GREEN)) == ["red", "blue", "green"]
    error_of(post_image(http, b""), 400)
    after = observed()
    expected = dict.fromkeys(stages, 3.0) | {"ok": 1.0, "images": 3.0, "bad": 1.0}
    assert {name: after[name] - before[name] for name in before} == expected
    page = service.metrics_page()
    for name in (
        "fovea_queue_depth{", "fovea_requests_in_flight{", "fovea_batch_size_bucket{", "process_resident_memory_bytes ",
    ):  # fmt: skip
        assert f"\n{name}" in page
    for name in ("fovea_requests_rejected", "fovea_batches_failed"):
        assert f"# TYPE {name}_total counter" in page
    assert service.metric("fovea_model_info", execution_provider="CPUExecutionProvider", **labels) == 1
