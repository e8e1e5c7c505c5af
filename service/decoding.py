"""Encoded images to a model's input, off the event loop where it takes long."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from service.errors import DeadlineExceededError, QueueFullError
from service.image_contract import ImageContract
from service.images import ImageLimits, decode, decode_if_small
from service.tensors import Array


class Decoder:
    """Decodes a bounded number of images at a time.

    Args:
        max_waiting: most images that may be waiting to be decoded; one more is refused at once.
        threads: images decoded at a time.
    """

    def __init__(self, limits: ImageLimits, *, max_waiting: int, threads: int) -> None:
        self._limits = limits
        self._max_waiting = max_waiting
        self._waiting = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    async def decode(self, image: bytes, contract: ImageContract, deadline: float) -> Array:
        """One encoded image to the model's input for it.

        Args:
            deadline: on `time.monotonic`'s clock.

        Raises:
            InvalidInputError, TooLargeError: as `images.decode`.
            QueueFullError: too many images are waiting.
            DeadlineExceededError: not decoded by the deadline.
        """
        small = decode_if_small(image, contract.preprocessing, self._limits)
        if small is not None:
            return contract.to_input(small)
        if self._waiting >= self._max_waiting:
            raise QueueFullError(f"{self._waiting} images are waiting to be decoded")
        self._waiting += 1
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await asyncio.get_running_loop().run_in_executor(self._threads, self._decode, image, contract)
        except TimeoutError:
            raise DeadlineExceededError("the deadline passed before the image was decoded") from None
        finally:
            self._waiting -= 1

    def close(self) -> None:
        self._threads.shutdown()

    def _decode(self, image: bytes, contract: ImageContract) -> Array:
        return contract.to_input(decode(image, contract.preprocessing, self._limits))
