"""CUDA shared memory: refused where there is no CUDA, used where there is."""

from __future__ import annotations

import base64
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.grpc import service_pb2, service_pb2_grpc

from service.cuda_memory import CudaRuntime
from service.errors import AlreadyExistsError, InferenceError, InvalidInputError, StartError
from service.shared_memory import Place, SharedMemory
from tests.conformance.models import write_simple
from tests.service.launch import RunningService, run_to_end, running

HANDLE = bytes(range(64))
FIRST, SECOND = np.arange(16, dtype=np.int32).reshape(1, 16), np.full((1, 16), 7, np.int32)


def why_no_cuda() -> str:
    """Empty where a GPU can be used."""
    if not find_spec("cuda"):
        return "cuda-bindings is not installed: install the extra 'gpu'"
    try:
        CudaRuntime()
    except StartError as error:
        return str(error)
    return ""


def test_a_start_that_asks_for_it_without_a_gpu_is_refused(tmp_path: Path) -> None:
    if not why_no_cuda():
        pytest.skip("there is a GPU")
    write_simple(tmp_path)
    ended = run_to_end("serve", model_repository=tmp_path, cuda_shared_memory=True)
    assert ended.returncode == 1
    assert "FOVEA_CUDA_SHARED_MEMORY=true" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_it_is_off_unless_it_is_allowed(service: RunningService) -> None:
    assert "cuda_shared_memory" not in httpx.get(f"{service.http}/v2").json()["extensions"]
    body = {"raw_handle": {"b64": base64.b64encode(HANDLE).decode()}, "device_id": 0, "byte_size": 64}
    for method, path, given in (
        ("GET", "status", None),
        ("GET", "region/mine/status", None),
        ("POST", "region/mine/register", body),
        ("POST", "unregister", None),
        ("POST", "region/mine/unregister", None),
    ):
        answer = httpx.request(method, f"{service.http}/v2/cudasharedmemory/{path}", json=given)
        assert answer.status_code == 403
        assert "FOVEA_CUDA_SHARED_MEMORY" in answer.json()["error"]
    with grpc.insecure_channel(service.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for call, request in (
            (stub.CudaSharedMemoryStatus, service_pb2.CudaSharedMemoryStatusRequest()),
            (stub.CudaSharedMemoryRegister, service_pb2.CudaSharedMemoryRegisterRequest(name="mine")),
            (stub.CudaSharedMemoryUnregister, service_pb2.CudaSharedMemoryUnregisterRequest()),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                call(request, timeout=60)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


class HostRuntime(CudaRuntime):
    """The regions' bookkeeping without a GPU: this process's own memory in the place of a device's."""

    def __init__(self, memory: bytearray) -> None:
        self.memory = memory
        self.open_count = 0

    def open(self, handle: bytes, device_id: int) -> int:
        if handle != HANDLE or device_id:
            raise InvalidInputError("no memory")
        self.open_count += 1
        return 0

    def read(self, address: int, byte_size: int, device_id: int) -> bytes:
        return bytes(self.memory[address : address + byte_size])

    def write(self, address: int, content: bytes, device_id: int) -> None:
        self.memory[address : address + len(content)] = content

    def close(self, address: int) -> None:
        self.open_count -= 1


@pytest.fixture
def runtime() -> HostRuntime:
    return HostRuntime(bytearray(range(64)))


def test_regions_of_both_kinds_share_their_names(runtime: HostRuntime) -> None:
    memory = SharedMemory(system=True, cuda=runtime)
    memory.register_cuda("device", HANDLE, 0, 64)
    with pytest.raises(AlreadyExistsError, match="'device' already in manager"):
        memory.register_cuda("device", HANDLE, 0, 64)
    with pytest.raises(AlreadyExistsError, match="'device' already in manager"):
        memory.register_system("device", "key", 0, 64)
    assert [(region.name, region.device_id, region.byte_size) for region in memory.cuda_regions("")] == [
        ("device", 0, 64)
    ]
    assert memory.system_regions("") == []
    memory.unregister_system("")
    memory.unregister_cuda("another")
    assert runtime.open_count == 1
    memory.unregister_cuda("device")
    assert memory.cuda_regions("") == []
    assert runtime.open_count == 0


def test_what_cannot_be_opened_is_not_registered(runtime: HostRuntime) -> None:
    memory = SharedMemory(system=False, cuda=runtime)
    with pytest.raises(InvalidInputError):
        memory.register_cuda("device", bytes(64), 0, 64)
    assert memory.cuda_regions("") == []


def test_tensors_stay_in_their_place(runtime: HostRuntime) -> None:
    memory = SharedMemory(system=False, cuda=runtime)
    memory.register_cuda("device", HANDLE, 0, 32)
    assert memory.read(Place("device", 4, 8)) == bytes(range(4, 12))
    memory.write(Place("device", 16, 8), b"\xff\xff", "out")
    assert runtime.memory[15:19] == b"\x0f\xff\xff\x12"
    with pytest.raises(InvalidInputError, match="must be at most 32"):
        memory.read(Place("device", 28, 8))
    with pytest.raises(InvalidInputError, match="should be at least 9 bytes"):
        memory.write(Place("device", 16, 8), bytes(9), "out")
    memory.close()
    assert runtime.open_count == 0


def test_a_handle_of_another_length_is_refused() -> None:
    runtime = CudaRuntime.__new__(CudaRuntime)
    with pytest.raises(InvalidInputError, match="raw_handle has 3 bytes: a cudaIpcMemHandle_t has 64"):
        runtime.open(b"abc", 0)


@dataclass
class Device:
    """Memory of the GPU, and its handle."""

    runtime: Any
    address: int
    handle: bytes

    def put(self, offset: int, content: bytes) -> None:
        kind = self.runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        assert not self.runtime.cudaMemcpy(self.address + offset, content, len(content), kind)[0]

    def get(self, offset: int, byte_size: int) -> bytes:
        content = ctypes.create_string_buffer(byte_size)
        kind = self.runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        assert not self.runtime.cudaMemcpy(ctypes.addressof(content), self.address + offset, byte_size, kind)[0]
        return content.raw


@pytest.fixture
def device() -> Iterator[Device]:
    if reason := why_no_cuda():
        pytest.skip(reason)
    from cuda.bindings import runtime

    status, address = runtime.cudaMalloc(4096)
    assert not status
    status, handle = runtime.cudaIpcGetMemHandle(address)
    assert not status
    yield Device(runtime, int(address), ctypes.string_at(int(handle.getPtr()), 64))
    runtime.cudaFree(address)


@pytest.mark.parametrize("client", [tritonclient.http, tritonclient.grpc], ids=["http", "grpc"])
def test_tensors_in_memory_of_a_gpu(client: Any, device: Device, tmp_path: Path) -> None:
    write_simple(tmp_path)
    with running(tmp_path, cuda_shared_memory=True) as service:
        address = service.grpc if client is tritonclient.grpc else service.http.removeprefix("http://")
        triton = client.InferenceServerClient(address)
        triton.register_cuda_shared_memory("device", base64.b64encode(device.handle), 0, 256)
        device.put(0, FIRST.tobytes())
        device.put(64, SECOND.tobytes())
        inputs = [client.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
        inputs[0].set_shared_memory("device", 64, 0)
        inputs[1].set_shared_memory("device", 64, 64)
        outputs = [client.InferRequestedOutput(name) for name in ("OUTPUT0", "OUTPUT1")]
        outputs[0].set_shared_memory("device", 64, 128)
        outputs[1].set_shared_memory("device", 64, 192)
        triton.infer("simple", inputs, outputs=outputs)
        assert device.get(128, 64) == (FIRST + SECOND).tobytes()
        assert device.get(192, 64) == (FIRST - SECOND).tobytes()
        triton.unregister_cuda_shared_memory("device")
        with pytest.raises(Exception, match="Unable to find shared memory region"):
            triton.infer("simple", inputs, outputs=outputs)
        triton.close()


def test_a_handle_that_stands_for_nothing_is_refused(device: Device) -> None:
    with pytest.raises(InvalidInputError, match="failed to register CUDA shared memory on device 0"):
        CudaRuntime().open(bytes(64), 0)
    with pytest.raises(InferenceError, match="cudaMemcpy"):
        CudaRuntime().read(1, 8, 0)
