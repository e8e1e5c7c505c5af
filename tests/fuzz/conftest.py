"""The service under attack."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.shared_memory import FOLDER
from tests.conformance.models import write_repository
from tests.fuzz.target import Target
from tests.repositories import write_model
from tests.service.launch import RunningService, running


@pytest.fixture(scope="session")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Every model of the conformance suite, "colours" for images and its features; all that can be allowed is."""
    repository = tmp_path_factory.mktemp("attacked")
    write_repository(repository)
    write_model(repository)
    write_model(repository, "features", features=True)
    with running(
        repository,
        model_control_mode="explicit",
        system_shared_memory=True,
        log_and_trace_changes=True,
        default_model="colours",
    ) as service:
        yield service


@pytest.fixture
def target(attacked: RunningService) -> Iterator[Target]:
    """It has 256 bytes of shared memory, known as "region"."""
    found = Target(attacked)
    with tempfile.NamedTemporaryFile(dir=FOLDER) as memory:
        memory.truncate(256)
        found.register("region", Path(memory.name).name, 256)
        yield found
        found.close()
