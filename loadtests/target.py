"""The service under load: started for the purpose, or running elsewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from loadtests.fetch import fetch

BUNDLED_REPOSITORY = Path(__file__).parent.parent / "model_repository"

ADDRESS = re.compile(r"  (?P<what>HTTP|gRPC|metrics) +(?P<address>\S+)")


@dataclass(frozen=True)
class Target:
    """Where a service listens: `http://host:port`, `host:port` and `http://host:port/metrics`.

    Attributes:
        pid: its process, where it was started here.
    """

    http: str
    grpc: str
    metrics: str
    pid: int | None = None

    def served(self) -> list[str]:
        """What it serves: a phrase for each version of a model that is ready."""
        models = json.loads(fetch(f"{self.http}/v1/models"))["models"]
        return [
            f"{model['name']} version {version['version']} ({version['execution_provider']}, "
            f"{version['instances']} instances, max batch size {version['max_batch_size']})"
            for model in models
            for version in model["versions"]
            if version["state"] == "READY"
        ]


def model_repository() -> Path:
    """The model repository to serve: FOVEA_MODEL_REPOSITORY, or the bundled one."""
    return Path(os.environ.get("FOVEA_MODEL_REPOSITORY") or BUNDLED_REPOSITORY)


@contextmanager
def started_service(
    repository: Path | None = None, *settings: str, prefix: Sequence[str] = (), log: IO[str] | None = None
) -> Iterator[Target]:
    """A service of our own on free ports of the loopback address; stopped however the block is left.

    Args:
        repository: None: that of `model_repository`.
        settings: flags of `fovea serve`.
        prefix: a command that becomes the one that it is given (`env`, `sh -c 'exec "$@"' sh`).
        log: where the service's log goes; None: to our own standard error.
    """
    command = [sys.executable, "-m", "service", "serve", "--model-repository", str(repository or model_repository())]
    command += ["--host", "127.0.0.1", "--http-port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    command += ["--log-level", "warning"]  # Requests that fail are counted here; one line each would slow it down.
    command += settings
    with subprocess.Popen([*prefix, *command], stdout=subprocess.PIPE, stderr=log, text=True) as process:
        try:
            assert process.stdout is not None
            yield replace(_announced(process.stdout), pid=process.pid)
        finally:
            process.terminate()
            process.wait()


def _announced(lines: IO[str]) -> Target:
    addresses: dict[str, str] = {}
    for line in lines:
        if found := ADDRESS.match(line):
            addresses[found["what"]] = found["address"]
        if len(addresses) == 3:
            return Target(addresses["HTTP"], addresses["gRPC"], addresses["metrics"])
    raise SystemExit("error: the service did not start; what it says is above")
