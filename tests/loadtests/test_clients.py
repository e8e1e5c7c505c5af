"""Each client of the load tests, against the real service."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest

from loadtests.clients.client import Client, RequestError
from loadtests.clients.images_grpc import ImagesGrpc
from loadtests.clients.images_http import ImagesHttp
from loadtests.clients.images_stream import ImagesStream
from loadtests.clients.tensors import made_up
from loadtests.clients.tensors_grpc import TensorsGrpc
from loadtests.clients.tensors_http import TensorsHttp
from loadtests.images import draw
from loadtests.refusals import refused
from tests.repositories import write_model
from tests.service.launch import RunningService, lasting_port, running

IMAGE = draw(0, (32, 32))

Connect = Callable[[RunningService, bytes, str], Client]
"""To a service, with an image or for a model."""

CLIENTS: dict[str, Connect] = {
    "images over HTTP": lambda service, image, model: ImagesHttp(service.http, repeat(image), 2),
    "images over gRPC": lambda service, image, model: ImagesGrpc(service.grpc, repeat(image)),
    "images on a stream": lambda service, image, model: ImagesStream(service.grpc, repeat(image)),
    "tensors over HTTP": lambda service, image, model: TensorsHttp(service.http, model, 2),
    "tensors over gRPC": lambda service, image, model: TensorsGrpc(service.grpc, model),
}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    repository = tmp_path_factory.mktemp("models")
    write_model(repository)
    with running(repository) as service:
        yield service


@pytest.fixture(params=CLIENTS)
def connect(request: pytest.FixtureRequest) -> Connect:
    return CLIENTS[request.param]


def test_requests_are_answered(service: RunningService, connect: Connect) -> None:
    before = service.metric("fovea_requests_total")
    with closing(connect(service, IMAGE, "colours")) as client:
        lengths = [client.send() for _ in range(3)]
    assert min(lengths) > 0
    assert service.metric("fovea_requests_total") - before >= 3


def test_what_is_refused_says_why(service: RunningService, connect: Connect) -> None:
    with closing(connect(service, b"not an image", "nothing")) as client:
        for _ in range(2):
            with pytest.raises(RequestError, match=r"^(400|404|INVALID_ARGUMENT|NOT_FOUND): \w+"):
                client.send()


def test_requests_on_a_stream_are_answered_side_by_side(service: RunningService) -> None:
    images = iter([IMAGE, b"not an image"] * 50)
    with closing(ImagesStream(service.grpc, images)) as client, ThreadPoolExecutor(10) as pool:
        client.send()
        asked = [pool.submit(client.send) for _ in range(98)]
        errors = [str(each.exception()) for each in asked if each.exception()]
    assert len(errors) == 49
    assert all(error.startswith("INVALID_ARGUMENT: ") for error in errors)


@pytest.mark.parametrize(
    "connect",
    [
        lambda address: ImagesGrpc(address, repeat(IMAGE)),
        lambda address: ImagesStream(address, repeat(IMAGE)),
        lambda address: TensorsGrpc(address, "colours"),
    ],
)
def test_a_connection_that_fails_is_no_refusal(connect: Callable[[str], Client]) -> None:
    with closing(connect(f"127.0.0.1:{lasting_port()}")) as client, pytest.raises(RequestError) as failed:
        client.send()
    assert str(failed.value).startswith("connection: failed to connect")
    assert not refused(str(failed.value))


@pytest.mark.system
def test_a_service_that_went_away_is_found_again(tmp_path: Path, connect: Connect) -> None:
    write_model(tmp_path)
    http_port, grpc_port = lasting_port(), lasting_port()
    with running(tmp_path, http_port=http_port, grpc_port=grpc_port) as service:
        client = connect(service, IMAGE, "colours")
        client.send()
    with closing(client):
        with pytest.raises((RequestError, OSError)):
            client.send()
        with running(tmp_path, http_port=http_port, grpc_port=grpc_port):
            # A gRPC channel tries again after a while only: the test's own timeout is the limit.
            while not answered(client):
                time.sleep(0.1)


def answered(client: Client) -> bool:
    try:
        return client.send() > 0
    except (RequestError, OSError):
        return False


@pytest.mark.parametrize("datatype", ["UINT8", "INT8", "INT64", "FP16", "FP32", "FP64", "BOOL", "BF16"])
def test_tensors_are_made_up_for_every_datatype_of_numbers(datatype: str) -> None:
    tensor = made_up(datatype, [-1, 4, 4, 3])
    assert tensor.shape == (1, 4, 4, 3)
    assert len(np.unique(tensor)) > 1


@pytest.mark.parametrize("datatype", ["BYTES", "NONE"])
def test_other_tensors_are_not_made_up(datatype: str) -> None:
    with pytest.raises(ValueError, match=f"the model takes {datatype}"):
        made_up(datatype, [-1])
