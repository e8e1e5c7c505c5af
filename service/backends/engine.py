"""What every engine is to the rest of the service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tritonclient.grpc import model_config_pb2 as pb

from service.tensors import Array, Graph


class Session(Protocol):
    """One place where a version's graph runs, a batch at a time.

    Attributes:
        provider: its execution provider.
        graph: the graph's inputs and outputs.
        slow_at_new_sizes: whether a batch size that it has not seen yet costs it time.
        rows_at_once: of more rows it gains nothing but memory that it takes; None: the more the better.
    """

    provider: str
    graph: Graph
    slow_at_new_sizes: bool
    rows_at_once: int | None

    def room(self, rows: int) -> Mapping[str, Array] | None:
        """Where a batch of so many rows is to be made: an array for each input, (rows, …), the same one every time.

        Returns:
            None: anywhere.
        """

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Run the graph; takes its time.

        Raises:
            Exception: this batch failed.
        """

    def close(self) -> None:
        """Give back what the session holds; idle by then."""


class Engine(Protocol):
    """Opens the versions of models."""

    def open(self, folder: Path, version: str, config: pb.ModelConfig) -> list[Session]:
        """Open the sessions of a version; takes its time.

        Args:
            folder: the model's.
            config: its instance groups are completed.

        Raises:
            ModelError: it cannot be opened; the message says why.
        """

    def refresh(self) -> None:
        """See anew what the engine has; takes its time."""

    def lacks(self, model: str, version: str) -> str:
        """Why the engine cannot run a version, as last seen; empty where it can."""

    def close(self) -> None:
        """Let go of everything; batches that are being run fail."""
