"""Shared memory: regions of this host's, or of a GPU's, that clients register, with tensors in them.

System shared memory is read and written by its descriptor, not mapped: memory that its owner shortens afterwards then
gives an error, where a mapped page would end the process.
"""

from __future__ import annotations

import os
import stat
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from service.cuda_memory import CudaRegion, CudaRuntime
from service.errors import AlreadyExistsError, ForbiddenError, InvalidInputError, NotFoundError

FOLDER = Path("/dev/shm")
"""Where Linux keeps the objects of shm_open(3), by their keys."""


@dataclass(frozen=True)
class SystemRegion:
    """A part of a shared memory object, open for as long as somebody has this: it may be read in another thread."""

    name: str
    key: str
    offset: int
    byte_size: int
    descriptor: int

    def __post_init__(self) -> None:
        weakref.finalize(self, os.close, self.descriptor)

    def read(self, offset: int, byte_size: int) -> bytes:
        content = os.pread(self.descriptor, byte_size, self.offset + offset)
        if len(content) != byte_size:
            raise InvalidInputError(f"shared memory region '{self.name}' is shorter than when it was registered")
        return content

    def write(self, offset: int, content: bytes) -> None:
        if os.fstat(self.descriptor).st_size < self.offset + self.byte_size:
            raise InvalidInputError(f"shared memory region '{self.name}' is shorter than when it was registered")
        os.pwrite(self.descriptor, content, self.offset + offset)


Region = SystemRegion | CudaRegion


@dataclass(frozen=True)
class Place:
    """Where in a region a tensor lies."""

    region: str
    offset: int
    byte_size: int


class SharedMemory:
    """The regions that clients have registered, of both kinds, each by a name of its own.

    Args:
        system: whether clients may register system shared memory.
        cuda: what opens CUDA shared memory; None: clients may not register any.
    """

    def __init__(self, *, system: bool, cuda: CudaRuntime | None) -> None:
        self._system = system
        self._cuda = cuda
        self._regions: dict[str, Region] = {}

    def register_system(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Make a part of a shared memory object known by a name.

        Raises:
            ForbiddenError: clients may not.
            AlreadyExistsError: the name is taken.
            InvalidInputError: there is no such object, or it is not as large.
        """
        self._require_system()
        self._require_free(name)
        descriptor = _open(key)
        size = os.fstat(descriptor).st_size
        if offset < 0 or byte_size < 0 or offset + byte_size > size:
            os.close(descriptor)
            raise InvalidInputError(
                f"shared memory region '{name}': offset {offset} and byte_size {byte_size} must lie in the {size} "
                f"bytes of {key!r}"
            )
        self._regions[name] = SystemRegion(name, key, offset, byte_size, descriptor)

    def register_cuda(self, name: str, handle: bytes, device_id: int, byte_size: int) -> None:
        """Make memory of a GPU known by a name.

        Args:
            handle: a cudaIpcMemHandle_t, of another process.

        Raises:
            ForbiddenError: clients may not.
            AlreadyExistsError: the name is taken.
            InvalidInputError: the handle stands for no memory.
        """
        cuda = self._require_cuda()
        self._require_free(name)
        self._regions[name] = CudaRegion(name, device_id, byte_size, cuda.open(handle, device_id), cuda)

    def unregister_system(self, name: str) -> None:
        """Forget a region; empty: all of system shared memory. One that is not known is none to forget."""
        self._require_system()
        self._forget(region for region in self._of_system() if name in ("", region.name))

    def unregister_cuda(self, name: str) -> None:
        """Forget a region; empty: all of CUDA shared memory. One that is not known is none to forget."""
        self._require_cuda()
        self._forget(region for region in self._of_cuda() if name in ("", region.name))

    def system_regions(self, name: str) -> list[SystemRegion]:
        """A region of system shared memory; empty: all of them.

        Raises:
            NotFoundError: it is not known.
        """
        self._require_system()
        found = [region for region in self._of_system() if name in ("", region.name)]
        if name and not found:
            raise NotFoundError(f"Unable to find system shared memory region: '{name}'")
        return found

    def cuda_regions(self, name: str) -> list[CudaRegion]:
        """A region of CUDA shared memory; empty: all of them.

        Raises:
            NotFoundError: it is not known.
        """
        self._require_cuda()
        found = [region for region in self._of_cuda() if name in ("", region.name)]
        if name and not found:
            raise NotFoundError(f"Unable to find cuda shared memory region: '{name}'")
        return found

    def read(self, place: Place) -> bytes:
        """A tensor's bytes.

        Raises:
            NotFoundError: the region is not known.
            InvalidInputError: the place is not in it, or the region is gone.
        """
        return self.require(place).read(place.offset, place.byte_size)

    def write(self, place: Place, content: bytes, output: str) -> None:
        """An output's bytes, into a place that may be larger.

        Raises:
            NotFoundError, InvalidInputError: as `read`; or the output does not fit.
        """
        region = self.require(place)
        if len(content) > place.byte_size:
            raise InvalidInputError(
                f"shared memory size specified with the request for output '{output}' ({place.byte_size} bytes) should "
                f"be at least {len(content)} bytes to hold the results"
            )
        region.write(place.offset, content)

    def require(self, place: Place) -> Region:
        """The region that a place is in.

        Raises:
            NotFoundError: it is not known.
            InvalidInputError: the place is not in it.
        """
        region = self._regions.get(place.region)
        if region is None:
            raise NotFoundError(f"Unable to find shared memory region: '{place.region}'")
        if place.offset + place.byte_size > region.byte_size:
            raise InvalidInputError(
                f"Invalid offset + byte size for shared memory region: '{place.region}': {place.offset} + "
                f"{place.byte_size} must be at most {region.byte_size}"
            )
        return region

    def close(self) -> None:
        self._forget(self._regions.values())

    def _of_system(self) -> list[SystemRegion]:
        return [region for region in self._regions.values() if isinstance(region, SystemRegion)]

    def _of_cuda(self) -> list[CudaRegion]:
        return [region for region in self._regions.values() if isinstance(region, CudaRegion)]

    def _forget(self, regions: Iterable[Region]) -> None:
        for region in list(regions):
            del self._regions[region.name]
            if isinstance(region, CudaRegion):
                region.close()

    def _require_free(self, name: str) -> None:
        if name in self._regions:
            raise AlreadyExistsError(f"shared memory region '{name}' already in manager")
        if not name:
            raise InvalidInputError("a shared memory region must have a name")

    def _require_system(self) -> None:
        if not self._system:
            raise ForbiddenError("shared memory cannot be registered: FOVEA_SYSTEM_SHARED_MEMORY must be true")

    def _require_cuda(self) -> CudaRuntime:
        if self._cuda is None:
            raise ForbiddenError("CUDA shared memory cannot be registered: FOVEA_CUDA_SHARED_MEMORY must be true")
        return self._cuda


def _open(key: str) -> int:
    name = key.removeprefix("/")
    refused = InvalidInputError(f"Unable to open shared memory region: {key!r}")
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise refused
    try:
        descriptor = os.open(FOLDER / name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        raise refused from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise refused
    return descriptor
