"""The body of an HTTP request with images, in any of its three forms, to encoded images."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pydantic import ValidationError
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from service.classifier import EncodedImage
from service.errors import DeadlineExceededError, InvalidInputError, TooLargeError, UnsupportedMediaTypeError
from service.rest.compression import decompressed
from service.rest.connection import CONNECTION, HttpConnection
from service.rest.headers import header
from service.rest.schemas import ClassifyBody, EmbedBody

MAX_FORM_FIELDS = 16

EXAMPLES = {
    ClassifyBody: '{"images": ["<base64>", …], "model": "…", "version": "…", "top_k": 5}',
    EmbedBody: '{"images": ["<base64>", …], "model": "…", "version": "…"}',
}


@dataclass(frozen=True, slots=True)
class ImagesInput:
    """What a body holds. `single`: it is one raw image, and is answered by one object."""

    images: list[EncodedImage]
    single: bool = False
    model: str = ""
    version: str = ""
    top_k: int | None = None


async def read_input(
    request: Request, form: type[EmbedBody], *, max_request_bytes: int, max_images: int, timeout_s: float
) -> ImagesInput:
    """Read the body.

    Args:
        form: what it holds.

    Raises:
        UnsupportedMediaTypeError: not a content type that is taken.
        TooLargeError: more bytes or images than allowed.
        InvalidInputError: malformed.
        DeadlineExceededError: it did not arrive in time.
    """
    content_type = header(request, b"content-type")
    media_type = media_type_of(content_type)
    if is_one_image(media_type):
        return ImagesInput([await _as_sent(request, max_request_bytes, timeout_s)], single=True)
    if media_type == "application/json":
        return _from_json(await _as_sent(request, max_request_bytes, timeout_s), form)
    if media_type == "multipart/form-data":
        async with _arriving(timeout_s):
            return await _from_form(request, form, limited(request, max_request_bytes), max_request_bytes, max_images)
    raise UnsupportedMediaTypeError(
        f"content type {content_type!r}: must be image/*, multipart/form-data or application/json"
    )


def media_type_of(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def is_one_image(media_type: str) -> bool:
    """Whether a body of this type is an image as it is."""
    return media_type.startswith("image/") or media_type == "application/octet-stream"


async def read_body(request: Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body, as it was before its content coding.

    Raises:
        UnsupportedEncodingError: not a content coding that is taken.
        TooLargeError: more than that many bytes, before or after it.
        InvalidInputError: not in that coding.
        DeadlineExceededError: it did not arrive in time.
    """
    encoding = header(request, b"content-encoding").lower()
    if encoding in ("", "identity"):
        return await _as_sent(request, max_bytes, timeout_s)
    async with _arriving(timeout_s):
        return await _whole(decompressed(limited(request, max_bytes), encoding, max_bytes))


async def _as_sent(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    connection: HttpConnection = request.scope["state"][CONNECTION]
    if not connection.body_is_there:
        async with _arriving(timeout_s):
            return await _whole(limited(request, max_bytes))
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    content: bytes = message["body"]
    if len(content) > max_bytes:
        raise _too_large(max_bytes)
    return content


@asynccontextmanager
async def _arriving(timeout_s: float) -> AsyncIterator[None]:
    """Raises:
    DeadlineExceededError: the body that is read inside did not arrive in time.
    """
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise DeadlineExceededError(f"the body did not arrive within {timeout_s:g} s") from None


async def limited(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """The body as it comes in, of `limit` bytes at most.

    Raises:
        TooLargeError: more than that.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise _too_large(limit)
        yield chunk


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"the body is larger than {limit} bytes")


async def _whole(chunks: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


def _from_json(content: bytes, form: type[EmbedBody]) -> ImagesInput:
    try:
        body = form.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInputError(
            f"JSON body: {where + ': ' if where else ''}{first['msg']}; must be {EXAMPLES[form]}, only images required"
        ) from None
    return ImagesInput(
        [_from_base64(text) for text in body.images],
        model=body.model,
        version=body.version,
        top_k=body.top_k if isinstance(body, ClassifyBody) and "top_k" in body.model_fields_set else None,
    )


def _from_base64(text: str) -> EncodedImage:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        return InvalidInputError(f"not base64: {error}")


class _FormParser(MultiPartParser):
    """Starlette's, for which a body that breaks off is whole without the part that it breaks off in."""

    _ended = False

    def on_end(self) -> None:
        self._ended = True

    async def to_the_end(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not self._ended:
            raise MultiPartException("it ends without its closing boundary")


async def _from_form(
    request: Request,
    form: type[EmbedBody],
    chunks: AsyncGenerator[bytes, None],
    max_request_bytes: int,
    max_images: int,
) -> ImagesInput:
    parser = _FormParser(request.headers, chunks, max_files=max_images, max_fields=MAX_FORM_FIELDS)
    parser.stream = parser.to_the_end(chunks)
    # The body's size is bounded already; this keeps its parts in memory, where a file system may be read-only.
    parser.spool_max_size = max_request_bytes
    try:
        sent = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise InvalidInputError(f"multipart body: {getattr(error, 'message', error)}") from error
    images: list[EncodedImage] = []
    fields: dict[str, str] = {}
    for name, value in sent.multi_items():
        if isinstance(value, str):
            fields[name] = value
        else:
            images.append(await value.read())
    await sent.close()
    *known, last = [name for name in form.model_fields if name != "images"]
    unknown = fields.keys() - {*known, last}
    if unknown:
        raise InvalidInputError(
            f"multipart field {min(unknown)!r}: must be {', '.join(known)} or {last}, or have a file name"
        )
    return ImagesInput(
        images,
        model=fields.get("model", ""),
        version=fields.get("version", ""),
        top_k=parse_top_k(fields["top_k"]) if "top_k" in fields else None,
    )


def parse_top_k(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text)):
        raise InvalidInputError(f"top_k is {text!r}: must be a whole number, at least 1")
    return int(text)
