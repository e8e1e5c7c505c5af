"""A real Triton server in a process of its own, on ports that were free."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.triton.install import packages, tritonserver

BACKEND = Path(__file__).resolve().parent / "onnxruntime_backend" / "model.py"
START_TIMEOUT_S = 300.0
EXIT_TIMEOUT_S = 60.0
LOG_TAIL_CHARACTERS = 8000


@dataclass(frozen=True)
class RunningTriton:
    """A server whose models are loaded and whose ports answer."""

    pid: int
    http: str
    grpc: str
    metrics: str
    log: Path


@contextmanager
def running(
    repository: Path, *, explicit_control: bool = False, grpc_port: int = 0, options: Sequence[str] = ()
) -> Iterator[RunningTriton]:
    """A server from its readiness on, with every model of the repository loaded.

    Args:
        explicit_control: whether models can be loaded and unloaded by request.
        grpc_port: 0: a free one.
    """
    # Triton's interpreter imports a module named `model`, which must not be the checkout's.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "log"
        prefix = f"triton_{folder.name}"
        ports = free_ports(3)
        ports[1] = grpc_port or ports[1]
        with log.open("w") as output:
            process = subprocess.Popen(
                _command(repository, _backends(folder), ports, explicit_control, prefix, options),
                env=_environment(),
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        http, grpc, metrics = (f"127.0.0.1:{port}" for port in ports)
        triton = RunningTriton(process.pid, f"http://{http}", grpc, f"http://{metrics}/metrics", log)
        try:
            _wait_until_ready(process, triton)
            yield triton
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(EXIT_TIMEOUT_S)
            # The models' processes outlive a server that did not end well.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            # Nor does the system take back the memory that it shared with them.
            for region in Path("/dev/shm").glob(f"{prefix}*"):
                region.unlink(missing_ok=True)


def _command(
    repository: Path, backends: Path, ports: Sequence[int], explicit_control: bool, prefix: str, options: Sequence[str]
) -> list[str]:
    http, grpc, metrics = ports
    control = ["explicit", "--load-model=*"] if explicit_control else ["none"]
    return [
        str(tritonserver() / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        *("--http-address=127.0.0.1", f"--http-port={http}"),
        *("--grpc-address=127.0.0.1", f"--grpc-port={grpc}"),
        *("--metrics-address=127.0.0.1", f"--metrics-port={metrics}"),
        "--exit-timeout-secs=2",
        f"--model-control-mode={control[0]}",
        *control[1:],
        f"--backend-config=python,shm-region-prefix-name={prefix}",
        *options,
    ]


def _backends(folder: Path) -> Path:
    """A folder of backends in which "onnxruntime" is ours, made of Triton's Python backend."""
    backends = folder / "backends"
    (backends / "onnxruntime").mkdir(parents=True)
    shutil.copy(BACKEND, backends / "onnxruntime")
    (backends / "python").symlink_to(tritonserver() / "backends" / "python")
    return backends


def _environment() -> dict[str, str]:
    libraries = [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]
    return os.environ | {
        "TRITON_ONNXRUNTIME_PACKAGES": str(packages()),
        "LD_LIBRARY_PATH": ":".join(library for library in libraries if library),
    }


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _wait_until_ready(process: subprocess.Popen[bytes], triton: RunningTriton) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(urllib.error.URLError, ConnectionError):
            # The port of the metrics opens last.
            for url in (f"{triton.http}/v2/health/ready", triton.metrics):
                urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.1)
    tail = triton.log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]
    raise RuntimeError(f"Triton ended with code {process.poll()} or was not ready in time:\n{tail}")
