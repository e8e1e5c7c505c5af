"""Services that the tests share, each in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import onnx
import pytest

from service.pb.fovea.v1 import classifier_pb2_grpc
from tests.repositories import graph, write_model
from tests.service.launch import RunningService, running

MAX_IMAGE_BYTES = 8 * 2**20
MAX_IMAGE_FRAMES = 20
MAX_REQUEST_BYTES = 12 * 2**20
MAX_IMAGES = 40
ONE_INSTANCE = "dynamic_batching { } instance_group [ { count: 1 kind: KIND_CPU } ]"


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """One fast model, "colours", in versions 1 and 3."""
    repository = tmp_path_factory.mktemp("service")
    write_model(repository, versions=(1, 3), extra="dynamic_batching { } version_policy { all { } }")
    with running(
        repository,
        max_image_bytes=MAX_IMAGE_BYTES,
        max_image_frames=MAX_IMAGE_FRAMES,
        max_request_bytes=MAX_REQUEST_BYTES,
        max_images_per_request=MAX_IMAGES,
    ) as started:
        yield started


@pytest.fixture(scope="session")
def slow_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """ "slow", which is the default, in batches of two, one at a time, with room for eight; "slower"; and "colours"."""
    repository = tmp_path_factory.mktemp("slow_service")
    write_model(repository, "slow", slow_rounds=60, max_batch_size=2, extra=ONE_INSTANCE)
    write_model(repository, "slower", slow_rounds=300, max_batch_size=2, extra=ONE_INSTANCE)
    write_model(repository)
    with running(repository, default_model="slow", max_queue_size=8) as started:
        yield started


@pytest.fixture(scope="session")
def broken_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """One good model, "colours", among models that cannot be served; no default."""
    repository = tmp_path_factory.mktemp("broken_service")
    write_model(repository)
    (write_model(repository, "no_config") / "config.pbtxt").write_text("max_batch_size: many")
    with (write_model(repository, "labels") / "labels.txt").open("a") as labels:
        labels.write("ultraviolet\n")
    change_golden(write_model(repository, "pixels") / "1", pixels=lambda pixels: 255 - pixels)
    change_golden(write_model(repository, "logits") / "1", logits=lambda logits: logits + 1)
    nan = write_model(repository, "nan") / "1" / "model.onnx"
    onnx.save(graph(8, scale=float("nan")), nan)
    write_model(repository, "no_version", versions=())
    (write_model(repository, "no_graph", golden=False) / "1" / "model.onnx").write_bytes(b"not a graph")
    with running(repository) as started:
        yield started


def change_golden(version_folder: Path, **changes: object) -> None:
    with np.load(version_folder / "golden.npz") as golden:
        arrays = dict(golden)
    for name, change in changes.items():
        assert callable(change)
        arrays[name] = change(arrays[name])
    np.savez(version_folder / "golden.npz", **arrays)


@pytest.fixture
def http(service: RunningService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.http, timeout=60) as client:
        yield client


@pytest.fixture
def stub(service: RunningService) -> Iterator[classifier_pb2_grpc.ClassifierStub]:
    with grpc.insecure_channel(service.grpc, options=NO_LIMITS) as channel:
        yield classifier_pb2_grpc.ClassifierStub(channel)


NO_LIMITS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
