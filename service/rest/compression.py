"""gzip and deflate of request and response bodies, by HTTP's content codings (RFC 9110, section 8.4.1)."""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator

from service.errors import InvalidInputError, TooLargeError, UnsupportedEncodingError

WINDOW_BITS = {"gzip": 31, "deflate": 15}
"""zlib's way to ask for either format."""


async def decompressed(chunks: AsyncGenerator[bytes, None], encoding: str, limit: int) -> AsyncGenerator[bytes, None]:
    """The body as it was before its content coding, of `limit` bytes at most.

    Raises:
        UnsupportedEncodingError: not a content coding that is taken.
        InvalidInputError: not in that format, or it ends too early.
        TooLargeError: more bytes than allowed.
    """
    if encoding in ("", "identity"):
        async for chunk in chunks:
            yield chunk
        return
    if encoding not in WINDOW_BITS:
        raise UnsupportedEncodingError(f"content encoding {encoding!r}: must be gzip, deflate or identity")
    stream = zlib.decompressobj(WINDOW_BITS[encoding])
    left = limit
    async for chunk in chunks:
        try:
            content = stream.decompress(chunk, left + 1)
        except zlib.error as error:
            raise InvalidInputError(f"the body is not {encoding}: {error}") from None
        left -= len(content)
        if left < 0:
            raise TooLargeError(f"the body is larger than {limit} bytes before its {encoding}")
        yield content
    if not stream.eof:
        raise InvalidInputError(f"the body's {encoding} is not complete")
    if stream.unused_data:
        raise InvalidInputError(f"the body goes on after its {encoding}: must be one stream of it")


def chosen_encoding(accept_encoding: str) -> str:
    """The content coding that a client likes best of those there are; empty: none."""
    if not accept_encoding:
        return ""
    best, best_weight = "", 0.0
    for part in accept_encoding.split(","):
        name, _, parameter = part.partition(";")
        key, _, value = parameter.strip().partition("=")
        try:
            weight = float(value) if key == "q" else 1.0
        except ValueError:
            weight = 0.0
        if name.strip().lower() in WINDOW_BITS and weight > best_weight:
            best, best_weight = name.strip().lower(), weight
    return best


def compress(content: bytes, encoding: str) -> bytes:
    stream = zlib.compressobj(wbits=WINDOW_BITS[encoding])
    return stream.compress(content) + stream.flush()
