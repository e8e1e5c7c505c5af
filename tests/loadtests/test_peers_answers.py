from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from loadtests.peers.answers import WrongAnswerError, check_answers, drawn_images
from loadtests.peers.model import Model, opened_model
from loadtests.peers.process import free_ports
from loadtests.peers.protocol import OIP_GRPC, OIP_HTTP, NotAnsweredError, Protocol, ask
from loadtests.peers.tiny import TINY
from tests.repositories import graph, write_model
from tests.service.launch import RunningService, running

PROTOCOLS = pytest.mark.parametrize("protocol", [OIP_HTTP, OIP_GRPC], ids=lambda protocol: protocol.wire)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("models")
    write_model(repository)
    return repository


@pytest.fixture(scope="module")
def service(repository: Path) -> Iterator[RunningService]:
    with running(repository) as service:
        yield service


@pytest.fixture
def model(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    monkeypatch.setenv("FOVEA_MODEL_REPOSITORY", str(repository))
    with opened_model("colours") as model:
        yield model


def port(service: RunningService, protocol: Protocol) -> int:
    address = service.grpc if protocol.wire == "gRPC" else service.http
    return int(address.rpartition(":")[2])


@PROTOCOLS
def test_a_server_of_the_model_passes(protocol: Protocol, service: RunningService, model: Model) -> None:
    check_answers(protocol, port(service, protocol), model)


@PROTOCOLS
def test_a_server_of_another_model_does_not(protocol: Protocol, service: RunningService, model: Model) -> None:
    onnx.save(graph(model.shape[0], scale=10.1 / 255), model.file)
    with pytest.raises(WrongAnswerError, match="ONNX Runtime"):
        check_answers(protocol, port(service, protocol), model)


@PROTOCOLS
def test_a_refusal_is_no_answer(protocol: Protocol, service: RunningService, model: Model) -> None:
    request = protocol.request(replace(model, name="other"), drawn_images(model, 1)[0])
    with pytest.raises(NotAnsweredError, match="other"):
        ask(protocol, port(service, protocol), request)


@PROTOCOLS
def test_where_nobody_listens_there_is_no_answer(protocol: Protocol, model: Model) -> None:
    with pytest.raises(NotAnsweredError):
        ask(protocol, free_ports(1)[0], protocol.request(model, drawn_images(model, 1)[0]))


def test_the_model_is_a_copy_with_its_facts(model: Model, repository: Path) -> None:
    assert model.file.is_file()
    assert not model.file.is_relative_to(repository)
    assert (model.shape, model.input, model.output, model.max_batch_size) == ((8, 8, 3), "pixels", "logits", 8)


def test_a_model_of_another_type_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model(tmp_path, golden=False)
    config = folder / "config.pbtxt"
    config.write_text(config.read_text().replace("UINT8", "FP32"))
    monkeypatch.setenv("FOVEA_MODEL_REPOSITORY", str(tmp_path))
    with pytest.raises(ValueError, match="uint8"), opened_model("colours"):
        pass


def test_the_tiny_model_tells_images_apart() -> None:
    with opened_model(TINY) as tiny:
        images = drawn_images(tiny, 3)
        logits = tiny.logits(np.concatenate(images))
        assert logits.shape == (3, 10)
        assert np.ptp(logits, axis=0).min() > 0.01
        np.testing.assert_allclose(tiny.logits(images[1])[0], logits[1], atol=1e-5)
