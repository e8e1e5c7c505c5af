"""The service that a fault strikes."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import psutil

from loadtests.metrics import read_metrics, total
from loadtests.target import BUNDLED_REPOSITORY, Target, started_service


@dataclass(frozen=True)
class Replica:
    """A service that has announced itself.

    Attributes:
        log: its file.
    """

    target: Target
    log: Path

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.target.pid)

    @property
    def ports(self) -> tuple[int, int]:
        """Of HTTP and gRPC."""
        http, grpc = (int(address.rpartition(":")[2]) for address in (self.target.http, self.target.grpc))
        return http, grpc

    def metric(self, name: str, **labels: str) -> float:
        return total(read_metrics(self.target.metrics), name, **labels)

    def ready(self) -> bool:
        """As a probe sees it."""
        try:
            urlopen(self.target.metrics.replace("/metrics", "/v2/health/ready"), timeout=10).close()
        except HTTPError as error:
            error.close()
            return False
        return True

    def served(self) -> str:
        """The version that answers."""
        return self.target.served()[0]


@asynccontextmanager
async def replica(*settings: str, repository: Path | None = None, prefix: Sequence[str] = ()) -> AsyncIterator[Replica]:
    """A service until the block is left, if it lasts that long.

    Args:
        settings: flags of `fovea serve`.
        repository: None: the bundled one.
        prefix: a command that becomes the one that it is given.
    """
    with tempfile.TemporaryDirectory(prefix="fovea-fault-") as folder:
        log = Path(folder) / "log"
        with log.open("w") as output:
            context = started_service(repository or BUNDLED_REPOSITORY, *settings, prefix=prefix, log=output)
            target = await asyncio.to_thread(context.__enter__)
            try:
                yield Replica(target, log)
            finally:
                await asyncio.to_thread(context.__exit__, None, None, None)


def same_ports(service: Replica) -> list[str]:
    """Flags for another service in its place."""
    http, grpc = service.ports
    return ["--http-port", str(http), "--grpc-port", str(grpc)]


def copied_repository(folder: Path) -> Path:
    """The bundled repository, in a folder where it may be changed; its model."""
    shutil.copytree(BUNDLED_REPOSITORY, folder, dirs_exist_ok=True)
    return folder / "cifar10"
