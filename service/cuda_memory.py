"""CUDA shared memory: memory of a GPU that a client has, opened here by its handle."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from service.errors import InferenceError, InvalidInputError, StartError

HANDLE_BYTES = 64
"""The size of a cudaIpcMemHandle_t."""


class CudaRuntime:
    """CUDA's runtime, as far as memory goes.

    Raises:
        StartError: there is none, or no GPU.
    """

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError:
            raise StartError(
                "FOVEA_CUDA_SHARED_MEMORY=true: CUDA's runtime is not installed; install the extra 'gpu', not 'cpu'"
            ) from None
        self._runtime: ModuleType = runtime
        status, count = runtime.cudaGetDeviceCount()
        if status or not count:
            raise StartError(f"FOVEA_CUDA_SHARED_MEMORY=true: no GPU can be used: {self._reason(status)}")

    def open(self, handle: bytes, device_id: int) -> int:
        """The address, on the device, of the memory that a handle stands for.

        Raises:
            InvalidInputError: it stands for none.
        """
        if len(handle) != HANDLE_BYTES:
            raise InvalidInputError(f"raw_handle has {len(handle)} bytes: a cudaIpcMemHandle_t has {HANDLE_BYTES}")
        given = self._runtime.cudaIpcMemHandle_t()
        ctypes.memmove(int(given.getPtr()), handle, HANDLE_BYTES)
        try:
            self._call("cudaSetDevice", device_id)
            return int(self._call("cudaIpcOpenMemHandle", given, self._runtime.cudaIpcMemLazyEnablePeerAccess))
        except InferenceError as error:
            raise InvalidInputError(f"failed to register CUDA shared memory on device {device_id}: {error}") from None

    def read(self, address: int, byte_size: int, device_id: int) -> bytes:
        """A copy, here, of what the device has there.

        Raises:
            InferenceError: the copy failed.
        """
        content = ctypes.create_string_buffer(byte_size)
        self._call("cudaSetDevice", device_id)
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpy", ctypes.addressof(content), address, byte_size, kind)
        return content.raw

    def write(self, address: int, content: bytes, device_id: int) -> None:
        """Raises:
        InferenceError: the copy failed.
        """
        self._call("cudaSetDevice", device_id)
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpy", address, content, len(content), kind)

    def close(self, address: int) -> None:
        # Nobody is left whom a failure could tell anything.
        self._runtime.cudaIpcCloseMemHandle(address)

    def _call(self, name: str, *arguments: object) -> Any:
        status, *results = getattr(self._runtime, name)(*arguments)
        if status:
            raise InferenceError(f"{name}: {self._reason(status)}")
        return results[0] if results else None

    def _reason(self, status: object) -> str:
        return str(self._runtime.cudaGetErrorString(status)[1].decode())


@dataclass(frozen=True)
class CudaRegion:
    """Memory of a GPU that a client has registered."""

    name: str
    device_id: int
    byte_size: int
    address: int
    runtime: CudaRuntime

    def read(self, offset: int, byte_size: int) -> bytes:
        return self.runtime.read(self.address + offset, byte_size, self.device_id)

    def write(self, offset: int, content: bytes) -> None:
        self.runtime.write(self.address + offset, content, self.device_id)

    def close(self) -> None:
        self.runtime.close(self.address)
