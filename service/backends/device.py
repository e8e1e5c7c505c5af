"""Where the tensors of a batch lie while it runs: a GPU's memory, or, as a stand-in for it, this host's."""

from __future__ import annotations

import ctypes
from typing import Any

from service.errors import InferenceError, StartError
from service.tensors import Array


class Host:
    """The memory of this process.

    Attributes:
        name, device_id: as ONNX Runtime calls it.
    """

    name = "cpu"
    device_id = 0

    def copy(self, to: int, source: int, size_bytes: int) -> None:
        """Copy between two addresses, each on this host or on the device; done when it returns, without the GIL.

        Raises:
            InferenceError: the copy failed.
        """
        ctypes.memmove(to, source, size_bytes)

    def lock(self, array: Array) -> None:
        """Keep an array's pages in place, so that the device reads them itself, with no copy in between.

        Raises:
            InferenceError: they cannot be kept.
        """

    def unlock(self, array: Array) -> None:
        """Undo `lock`."""


class Cuda(Host):
    """A GPU, by CUDA's own functions: ONNX Runtime has no page-locked memory for Python, and copies with the GIL held.

    Raises:
        StartError: CUDA's runtime is not installed.
    """

    name = "cuda"

    def __init__(self, device_id: int) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError:
            raise StartError(
                "FOVEA_EXECUTION_PROVIDER=cuda: CUDA's runtime is not installed; install the extra 'gpu', not 'cpu'"
            ) from None
        self._runtime: Any = runtime
        self.device_id = device_id

    def copy(self, to: int, source: int, size_bytes: int) -> None:
        self._call("cudaMemcpy", to, source, size_bytes, self._runtime.cudaMemcpyKind.cudaMemcpyDefault)

    def lock(self, array: Array) -> None:
        if array.nbytes:
            self._call("cudaHostRegister", array.ctypes.data, array.nbytes, self._runtime.cudaHostRegisterPortable)

    def unlock(self, array: Array) -> None:
        if array.nbytes:
            self._call("cudaHostUnregister", array.ctypes.data)

    def _call(self, name: str, *arguments: object) -> None:
        # Which device is current is each thread's own; unset, it would be the first, and take some of its memory.
        for called, given in (("cudaSetDevice", (self.device_id,)), (name, arguments)):
            (status,) = getattr(self._runtime, called)(*given)
            if status:
                reason = self._runtime.cudaGetErrorString(status)[1].decode()
                raise InferenceError(f"{called} on device {self.device_id}: {reason}")
