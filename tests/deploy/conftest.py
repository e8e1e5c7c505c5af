"""The image of the service on a CPU, built once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.podman import install
from tests.podman.container import build, podman


@pytest.fixture(scope="session")
def cpu_image() -> Iterator[str]:
    if reason := install.missing():
        pytest.skip(reason)
    tag = "localhost/fovea-test:cpu"
    build(install.ROOT / "deploy" / "docker" / "cpu.Dockerfile", tag)
    yield tag
    podman("rmi", "--force", tag)
