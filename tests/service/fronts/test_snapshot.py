"""What a front knows of the models."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.backends.onnx_runtime import OnnxRuntimeEngine
from service.fronts.arena import Arena, memory_file
from service.fronts.remote_batcher import RemoteRequests
from service.fronts.snapshot import Mirror, snapshot_of
from service.model_config import read_proto
from service.repository import Repository
from tests.repositories import write_model


@pytest.fixture
async def repository(tmp_path: Path) -> AsyncIterator[Repository]:
    write_model(tmp_path)
    made = Repository(
        tmp_path,
        OnnxRuntimeEngine("cpu", device_id=0),
        max_queue_size=100,
        default_model=None,
        on_batch=lambda model, version, record: None,
    )
    await made.start()
    yield made
    await made.close()


async def test_a_rollout_changes_the_config_that_a_front_shows_of_the_same_version(
    tmp_path: Path, repository: Repository
) -> None:
    descriptor = memory_file(4096)
    mirror = Mirror(RemoteRequests(Arena(descriptor)), lambda event: None)
    os.close(descriptor)

    def take() -> None:
        numbers = {served: number for number, served in enumerate(repository.catalogue.served())}
        assert mirror.take(snapshot_of(repository.catalogue, numbers, [])) == []

    take()
    served = mirror.catalogue.resolve("colours", "")
    config = tmp_path / "colours" / "config.pbtxt"
    with config.open("a") as file:
        file.write('parameters { key: "rollout.current" value { string_value: "1" } }\n')
    await repository.poll()
    take()
    assert mirror.catalogue.resolve("colours", "") is served
    shown = served.config.proto
    assert shown.parameters["rollout.current"] == read_proto(config.parent, None).parameters["rollout.current"]
    assert shown == repository.catalogue.resolve("colours", "").config.proto
