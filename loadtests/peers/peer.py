"""What a peer is: how it is started with a model, and what it is asked in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.peers.model import Model
from loadtests.peers.protocol import Protocol

SERVERS = Path(__file__).resolve().parent / "servers"


@dataclass(frozen=True)
class Command:
    """How a server is started.

    Attributes:
        settings: environment variables, beside those that are there.
        shared_memory: how the names begin of what a server that is killed leaves in /dev/shm.
    """

    arguments: tuple[str, ...]
    settings: dict[str, str] = field(default_factory=dict)
    shared_memory: str | None = None


@dataclass(frozen=True)
class Setting:
    """What a server is to be started with.

    Attributes:
        environment: the folder of the peer's environment.
        folder: an empty one, the server's working folder.
        http_port: a free one of the loopback address, as is the next.
        instances: of the model, each with one thread.
    """

    model: Model
    environment: Path
    folder: Path
    http_port: int
    grpc_port: int
    instances: int

    @property
    def python(self) -> str:
        return str(self.environment / "bin" / "python")

    @property
    def variables(self) -> dict[str, str]:
        """For the files in `servers/`."""
        return {
            "PEER_MODEL": str(self.model.file),
            "PEER_INSTANCES": str(self.instances),
            "PEER_MAX_BATCH_SIZE": str(self.model.max_batch_size),
            "PEER_PORT": str(self.http_port),
        }


@dataclass(frozen=True)
class Peer:
    """A model server.

    Attributes:
        package: its name in the package index.
        requirements: the file of its environment, without `.txt`; None: it runs in ours.
        configuration: in words, for whoever reads the figures.
    """

    name: str
    package: str
    requirements: str | None
    protocols: tuple[Protocol, ...]
    configuration: str
    command: Callable[[Setting], Command]
