"""The native transport: what holds of grpcio holds of it; what does not is here, and in docs/decisions/."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.repositories import write_model
from tests.service.launch import ROOT, RunningService, environment, run_to_end, running

pytest.importorskip("pygrpc_native")

MODULE_TIMEOUT_S = 1500
QUICK = ("service/test_grpc.py", "service/test_rpc_registration.py")
OTHERS = ("app", "client", "hostile", "inference", "log_settings", "swap", "trace_settings", "tracing")
LONG = (
    "test_conformance.py",
    "fuzz/test_grpc.py",
    "fuzz/test_connections.py",
    *(f"service/test_{name}.py" for name in OTHERS),
)
MIB = 2**20


@pytest.mark.timeout(MODULE_TIMEOUT_S + 60)
@pytest.mark.parametrize("module", QUICK)
def test_what_holds_of_grpcio(module: str) -> None:
    must_pass(module, "not system")


@pytest.mark.system
@pytest.mark.timeout(MODULE_TIMEOUT_S + 60)
@pytest.mark.parametrize("module", LONG)
def test_what_holds_of_grpcio_in_the_long_run(module: str) -> None:
    must_pass(module, "system or not system")


def must_pass(module: str, kinds: str) -> None:
    """Put the tests of a module to services with the native transport."""
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", f"tests/{module}", "-m", kinds, "-q", "-p", "no:cacheprovider"],
        env=os.environ | {"FOVEA_TEST_GRPC_TRANSPORT": "native"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=MODULE_TIMEOUT_S,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout


# Start


def test_a_transport_that_is_not_installed_is_named() -> None:
    hidden = "import sys; sys.modules['pygrpc_native'] = None"
    ended = subprocess.run(
        [sys.executable, "-c", f"{hidden}\nfrom service.__main__ import main\nsys.exit(main(['serve']))"],
        env=environment(grpc_transport="native"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: FOVEA_GRPC_TRANSPORT=native: ")
    assert "install the extra 'native'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_socket_that_cannot_be_made_is_a_failed_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Unix socket's path has at most 107 bytes."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    write_model(tmp_path / "models")
    ended = run_to_end("serve", model_repository=tmp_path / "models", grpc_transport="native")
    assert ended.returncode == 1
    assert "error: FOVEA_GRPC_TRANSPORT=native: " in ended.stderr
    assert "TMPDIR must name a folder" in ended.stderr
    assert ended.stderr.rstrip().endswith("to write to"), ended.stderr


# Where it differs


def test_what_it_leaves_unguarded_is_in_the_log(tmp_path: Path) -> None:
    """A message is unpacked whole before it is refused for its size. Not so any more? Then without the warning."""
    write_model(tmp_path)

    def grown_mib(transport: str) -> float:
        with (
            running(tmp_path, max_request_bytes=MIB, grpc_transport=transport) as service,
            grpc.insecure_channel(service.grpc, compression=grpc.Compression.Gzip) as channel,
        ):
            classify: Any = channel.unary_unary("/fovea.v1.Classifier/Classify")
            before = most_memory_mib(service)
            with pytest.raises(grpc.RpcError) as raised:
                classify(bytes(128 * MIB), timeout=60)
            assert raised.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert ("can fill the memory" in service.stderr()) == (transport == "native")
            return most_memory_mib(service) - before

    assert grown_mib("grpcio") < 32
    assert grown_mib("native") > 128


def most_memory_mib(service: RunningService) -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{service.process.pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


# What service.rpc.native mends


async def test_a_call_that_is_cancelled_before_it_has_begun_is_forgotten() -> None:
    """As it is with a busy loop, which finds a call and its end waiting together."""
    from pygrpc_native import EVENT_CALL, EVENT_CANCEL

    from service.rpc.native import NativeServer

    async def never(request: bytes, context: object) -> bytes:
        raise AssertionError("it was cancelled")

    nobody: Any = None
    server = NativeServer(nobody, request_timeout_s=60, options=())
    server.add_registered_method_handlers("a.B", {"C": grpc.unary_unary_rpc_method_handler(never)})
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        details = ((), "ipv4:127.0.0.1:1", None)
        server._on_events([(EVENT_CALL, 1, 0, b"", None, details), (EVENT_CANCEL, 1, None, None, None, None)])
        (call,) = server._calls.values()
        assert call.task
        await asyncio.wait({call.task})
        await asyncio.sleep(0)
        assert call.task.cancelled()
        assert not server._calls
    finally:
        await server.stop(None)
