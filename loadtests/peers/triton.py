"""NVIDIA Triton: HTTP and gRPC fronts and a batcher in C++, here with its Python backend, the one its wheel carries."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

from loadtests.peers.peer import SERVERS, Command, Peer, Setting
from loadtests.peers.protocol import OIP_GRPC, OIP_HTTP

CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: {max_batch_size}
input {{ name: "{input}" data_type: TYPE_UINT8 dims: {shape} }}
output {{ name: "{output}" data_type: TYPE_FP32 dims: [ -1 ] }}
dynamic_batching {{ }}
instance_group {{ count: {instances} kind: KIND_CPU }}
"""


def _command(setting: Setting) -> Command:
    packages = setting.environment / "lib" / f"python{_python()}" / "site-packages"
    triton = packages / "pytriton" / "tritonserver"
    repository = _write_repository(setting)
    shared_memory = f"triton_{setting.http_port}_"
    arguments = (
        str(triton / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={_write_backends(setting.folder, triton)}",
        f"--backend-config=python,shm-region-prefix-name={shared_memory}",
        *("--http-address=127.0.0.1", f"--http-port={setting.http_port}"),
        *("--grpc-address=127.0.0.1", f"--grpc-port={setting.grpc_port}"),
        *("--allow-metrics=false", "--exit-timeout-secs=2"),
    )
    settings = {"PEER_PACKAGES": str(packages), "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR")}
    return Command(arguments, setting.variables | settings, shared_memory)


def _write_repository(setting: Setting) -> Path:
    model, repository = setting.model, setting.folder / "repository"
    (repository / model.name / "1").mkdir(parents=True)
    shutil.copy(SERVERS / "triton_model.py", repository / model.name / "1" / "model.py")
    (repository / model.name / "config.pbtxt").write_text(
        CONFIG.format(
            name=model.name,
            max_batch_size=model.max_batch_size,
            input=model.input,
            shape=list(model.shape),
            output=model.output,
            instances=setting.instances,
        )
    )
    return repository


def _write_backends(folder: Path, triton: Path) -> Path:
    """The Python backend together with what starts a model: it is compiled for each version of Python."""
    backend = folder / "backends" / "python"
    backend.mkdir(parents=True)
    stub = triton / "python_backend_stubs" / _python() / "triton_python_backend_stub"
    for file in (*(triton / "backends" / "python").iterdir(), stub):
        (backend / file.name).symlink_to(file)
    return backend.parent


def _python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


TRITON = Peer(
    name="Triton",
    package="nvidia-pytriton",
    requirements="triton",
    protocols=(OIP_HTTP, OIP_GRPC),
    configuration="its Python backend; an instance per core with a session of one thread; dynamic batching up to the "
    "model's maximum, without a delay, its default; no metrics",
    command=_command,
)
