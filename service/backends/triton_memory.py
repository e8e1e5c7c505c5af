"""System shared memory between a session and a Triton server on the same host."""

from __future__ import annotations

import mmap
import os
import uuid
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from service.tensors import DTYPES, Array

FOLDER = Path("/dev/shm")
TIMEOUT_S = 2.0


class TritonMemory:
    """A region that Triton has mapped, or will have by the time something is in it.

    Its name in the file system is gone once both have it, so nothing of it is left behind by a process that is killed.
    """

    def __init__(self, stub: service_pb2_grpc.GRPCInferenceServiceStub) -> None:
        self._stub = stub
        self._memory: mmap.mmap | None = None
        self.name = ""

    def reserve(self, size_bytes: int) -> None:
        """Have at least so many bytes.

        Raises:
            OSError: there is no room.
            grpc.RpcError: Triton does not take the region.
        """
        if self._memory and len(self._memory) >= size_bytes:
            return
        self.release()
        size_bytes = 1 << (size_bytes - 1).bit_length()
        name = f"fovea-{uuid.uuid4().hex}"
        path = FOLDER / name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # Not ftruncate: what has no room must fail here, not where it is written to.
            os.posix_fallocate(descriptor, 0, size_bytes)
            memory = mmap.mmap(descriptor, size_bytes)
            request = service_pb2.SystemSharedMemoryRegisterRequest(name=name, key=f"/{name}", byte_size=size_bytes)
            self._stub.SystemSharedMemoryRegister(request, timeout=TIMEOUT_S)
        finally:
            os.close(descriptor)
            path.unlink()
        self._memory, self.name = memory, name

    def write(self, offset: int, content: Array | bytes) -> None:
        assert self._memory
        if isinstance(content, bytes):
            self._memory[offset : offset + len(content)] = content
        else:
            np.ndarray(content.shape, content.dtype, self._memory, offset)[...] = content

    def read(self, offset: int, datatype: str, shape: tuple[int, ...]) -> Array:
        """A copy of what is there: the next batch overwrites it."""
        assert self._memory
        return np.ndarray(shape, DTYPES[datatype], self._memory, offset).copy()

    def release(self) -> None:
        """Give the region up, here and there."""
        if not self._memory:
            return
        # A server that has gone, or was started again, has nothing to give up.
        with suppress(grpc.RpcError, ValueError):
            request = service_pb2.SystemSharedMemoryUnregisterRequest(name=self.name)
            self._stub.SystemSharedMemoryUnregister(request, timeout=TIMEOUT_S)
        self._memory.close()
        self._memory = None
