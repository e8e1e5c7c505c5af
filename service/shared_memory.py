"""System shared memory: regions that clients register, with tensors in them.

A region is read and written by its descriptor, not mapped: memory that its owner shortens afterwards then gives an
error, where a mapped page would end the process.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from service.errors import AlreadyExistsError, ForbiddenError, InvalidInputError, NotFoundError

FOLDER = Path("/dev/shm")
"""Where Linux keeps the objects of shm_open(3), by their keys."""


@dataclass(frozen=True)
class Region:
    """A part of a shared memory object, open."""

    name: str
    key: str
    offset: int
    byte_size: int
    descriptor: int


@dataclass(frozen=True)
class Place:
    """Where in a region a tensor lies."""

    region: str
    offset: int
    byte_size: int


class SharedMemory:
    """The regions that clients have registered.

    Args:
        allowed: whether they may.
    """

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed
        self._regions: dict[str, Region] = {}

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Make a part of a shared memory object known by a name.

        Raises:
            ForbiddenError: clients may not.
            AlreadyExistsError: the name is taken.
            InvalidInputError: there is no such object, or it is not as large.
        """
        self._require_allowed()
        if name in self._regions:
            raise AlreadyExistsError(f"shared memory region '{name}' already in manager")
        if not name:
            raise InvalidInputError("a shared memory region must have a name")
        descriptor = _open(key)
        size = os.fstat(descriptor).st_size
        if offset < 0 or byte_size < 0 or offset + byte_size > size:
            os.close(descriptor)
            raise InvalidInputError(
                f"shared memory region '{name}': offset {offset} and byte_size {byte_size} must lie in the {size} "
                f"bytes of {key!r}"
            )
        self._regions[name] = Region(name, key, offset, byte_size, descriptor)

    def unregister(self, name: str) -> None:
        """Forget a region; empty: all of them. One that is not known is none to forget."""
        self._require_allowed()
        for known in [name] if name else list(self._regions):
            if region := self._regions.pop(known, None):
                os.close(region.descriptor)

    def status(self, name: str) -> list[Region]:
        """A region; empty: all of them.

        Raises:
            NotFoundError: it is not known.
        """
        self._require_allowed()
        if not name:
            return list(self._regions.values())
        if name not in self._regions:
            raise NotFoundError(f"Unable to find system shared memory region: '{name}'")
        return [self._regions[name]]

    def read(self, place: Place) -> bytes:
        """A tensor's bytes.

        Raises:
            NotFoundError: the region is not known.
            InvalidInputError: the place is not in it, or the region is gone.
        """
        region = self.require(place)
        content = os.pread(region.descriptor, place.byte_size, region.offset + place.offset)
        if len(content) != place.byte_size:
            raise InvalidInputError(f"shared memory region '{place.region}' is shorter than when it was registered")
        return content

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
        if os.fstat(region.descriptor).st_size < region.offset + region.byte_size:
            raise InvalidInputError(f"shared memory region '{place.region}' is shorter than when it was registered")
        os.pwrite(region.descriptor, content, region.offset + place.offset)

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
        for region in self._regions.values():
            os.close(region.descriptor)
        self._regions.clear()

    def _require_allowed(self) -> None:
        if not self._allowed:
            raise ForbiddenError("shared memory cannot be registered: FOVEA_SYSTEM_SHARED_MEMORY must be true")


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
