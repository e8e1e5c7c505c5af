"""What is not known, however like a known request it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import pytest

from tests.conformance.wire import LENGTH_HEADER
from tests.service.inside import ORDINARY, Client, Inside, Values, infer, post, random_like, shown, tensors_of, words_of
from tests.service.known_infer.knowing import ONE, PAIR, know

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("size", [0, 3, 5, 8, 20])
async def test_a_body_of_another_size_is_refused_as_ever(service: Inside, client: Client, size: int) -> None:
    values: Values = {"INPUT0": np.ones((1, 1, 1), "<f4")}
    await know(service, client, infer("open", values))
    request = post("open", words_of(values), bytes(size))
    ordinary = await client.ask(post("open", words_of(values), bytes(size), ORDINARY))
    assert shown(await client.ask(request)) == shown(ordinary)
    assert ordinary.error(400)
    assert not service.known
    await know(service, client, infer("open", values))


@pytest.mark.parametrize("length", ["0", "1", "10000", "x", "", "-1", "99999999999999999999"])
async def test_another_length_of_the_words_is_another_request(service: Inside, client: Client, length: str) -> None:
    await know(service, client, infer("pair", ONE))
    ordinary = await client.ask(infer("pair", ONE, ORDINARY, length=length))
    assert shown(await client.ask(infer("pair", ONE, length=length))) == shown(ordinary)
    assert not service.known


async def test_of_two_lengths_the_first_counts(service: Inside, client: Client) -> None:
    await know(service, client, infer("pair", ONE))
    words = len(words_of(ONE))
    for first, second in ((words, words - 1), (words - 1, words)):
        requests = [
            infer("pair", ONE, f"{LENGTH_HEADER}: {second}", *own, length=str(first)) for own in ([], [ORDINARY])
        ]
        known, ordinary = [await client.ask(request) for request in requests]
        assert shown(known) == shown(ordinary)
        assert ordinary.status == (200 if first == words else 400)


SHM_OUTPUT = {"shared_memory_region": "region", "shared_memory_byte_size": 8}


@pytest.mark.parametrize(
    "request_",
    [
        post("pair", words_of(ONE)[:-1] + b', "id": "a"}', tensors_of(ONE)),
        post(
            "classifier",
            words_of({"SCORES": np.zeros((1, 4), "<f4")}, [{"name": "LOGITS", "parameters": {"classification": 2}}]),
            bytes(16),
        ),
        post("pair", words_of(ONE, binary_data_output=False), tensors_of(ONE)),
        post("pair", words_of(ONE, [{"name": "OUTPUT0", "parameters": {"binary_data": False}}]), tensors_of(ONE)),
        post(
            "simple",
            words_of(PAIR, [{"name": "OUTPUT0", "parameters": {"binary_data": False}}, "OUTPUT1"]),
            tensors_of(PAIR),
        ),
        post(
            "pair",
            b'{"inputs":[{"name":"INPUT0","datatype":"FP32","shape":[1,2],"data":[1,2]}],'
            b'"parameters":{"binary_data_output":true}}',
        ),
        post(
            "text",
            b'{"inputs":[{"name":"INPUT0","datatype":"BYTES","shape":[1,1],"parameters":{"binary_data_size":5}}],'
            b'"parameters":{"binary_data_output":true}}',
            b"\1\0\0\0a",
        ),
        post("pair", b"", tensors_of(ONE)),
        infer("pair", ONE, query="?a=b"),
        infer("pair", ONE, ORDINARY),
        infer("pair", ONE, "accept-encoding: gzip"),
        infer("pair", ONE, "content-encoding: identity"),
        infer("shared_memory", ONE, "expect: 100-continue", protocol="HTTP/1.1"),
    ],
    ids=lambda request: "",
)  # fmt: skip
async def test_what_is_never_known(service: Inside, request_: bytes) -> None:
    async with await service.connect() as client:
        for _ in range(3):
            client.send(request_)
            if b"100-continue" in request_:
                assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert (await client.answer()).status == 200
        assert not service.known


@pytest.mark.parametrize("key", ["shared_memory", r"shared\u005fmemory"])
async def test_tensors_in_shared_memory_are_never_known(service: Inside, client: Client, key: str) -> None:
    """In whatever words they are asked for."""
    with NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(bytes(16))
        file.flush()
        await register(client, "register", {"key": f"/{Path(file.name).name}", "offset": 0, "byte_size": 16})
        parameters = {"binary_data": True, "shared_memory_region": "known", "shared_memory_byte_size": 8}
        words = words_of(ONE, [{"name": "OUTPUT0", "parameters": parameters}])
        words = words.replace(b"shared_memory", key.encode())
        for seed in range(3):
            values = random_like(ONE, seed)
            found = (await client.ask(post("pair", words, tensors_of(values)))).json
            assert found["outputs"][0]["parameters"]["shared_memory_byte_size"] == 8
            assert os.pread(file.fileno(), 8, 0) == tensors_of(values)
        await register(client, "unregister", {})
        assert (await client.ask(post("pair", words, tensors_of(ONE)))).status == 404
        assert not service.known


async def register(client: Client, what: str, body: dict[str, Any]) -> None:
    content = json.dumps(body).encode()
    path = f"/v2/systemsharedmemory/region/known/{what}"
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n"
    assert (await client.ask(head.encode(), content)).status == 200


@pytest.mark.parametrize(
    ("protocol", "headers"),
    [("HTTP/1.0", []), ("HTTP/1.0", ["connection: keep-alive"]), ("HTTP/1.1", ["connection: close"])],
)
async def test_a_connection_is_closed_after_its_last_request(
    service: Inside, client: Client, protocol: str, headers: list[str]
) -> None:
    await know(service, client, infer("pair", ONE))
    async with await service.connect() as last:
        answer = await last.ask(infer("pair", ONE, *headers, protocol=protocol))
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await last.ending() == b""
    assert not service.known
