"""The image of the service on a CPU, built once by each process of the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.podman import install
from tests.podman.container import build, podman


@pytest.fixture(scope="session")
def cpu_image() -> Iterator[str]:
    if reason := install.missing():
        pytest.skip(reason)
    tag = f"localhost/fovea-test:cpu-{os.getpid()}"
    build(install.ROOT / "deploy" / "docker" / "cpu.Dockerfile", tag)
    yield tag
    podman("rmi", "--force", tag)
