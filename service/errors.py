"""What can go wrong with a request. Each error knows its HTTP status and its gRPC code."""

from __future__ import annotations

from typing import ClassVar

from grpc import StatusCode

MAX_TEXT_BYTES = 2000
"""Of an error's text: gRPC sends it in a header, up to three bytes for each, and clients take 8 KiB of those."""

CONTROLS = {code: repr(chr(code))[1:-1] for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}


def shown(text: str) -> str:
    """A text with a client's own words in it, as it can be logged and sent back: of one line, and of limited length."""
    content = text.translate(CONTROLS).encode(errors="backslashreplace")
    if len(content) <= MAX_TEXT_BYTES:
        return content.decode()
    return content[:MAX_TEXT_BYTES].decode(errors="ignore") + " …"


class FoveaError(Exception):
    """A request failed; the message says what was wrong and what would be right."""

    http_status: ClassVar[int] = 500
    grpc_code: ClassVar[StatusCode] = StatusCode.INTERNAL
    retry_after_s: ClassVar[int | None] = None

    def __init__(self, text: str) -> None:
        super().__init__(shown(text))


class InvalidInputError(FoveaError):
    http_status = 400
    grpc_code = StatusCode.INVALID_ARGUMENT


class TooLargeError(FoveaError):
    http_status = 413
    grpc_code = StatusCode.RESOURCE_EXHAUSTED


class UnsupportedEncodingError(FoveaError):
    """A content coding that is not known."""

    http_status = 415
    grpc_code = StatusCode.UNIMPLEMENTED


class UnsupportedMediaTypeError(FoveaError):
    http_status = 415
    grpc_code = StatusCode.INVALID_ARGUMENT


class AlreadyExistsError(FoveaError):
    http_status = 400
    grpc_code = StatusCode.ALREADY_EXISTS


class UnauthenticatedError(FoveaError):
    """No API key, or none that is known."""

    http_status = 401
    grpc_code = StatusCode.UNAUTHENTICATED


class ForbiddenError(FoveaError):
    """The service's settings do not allow it, or the API key's rights."""

    http_status = 403
    grpc_code = StatusCode.PERMISSION_DENIED


class UnsupportedError(FoveaError):
    """A part of a protocol that this service does not have."""

    http_status = 501
    grpc_code = StatusCode.UNIMPLEMENTED


class NotFoundError(FoveaError):
    http_status = 404
    grpc_code = StatusCode.NOT_FOUND


class UnavailableError(FoveaError):
    """Not now: too busy, not ready or stopping. The same request may succeed later or elsewhere."""

    http_status = 503
    grpc_code = StatusCode.UNAVAILABLE
    retry_after_s = 1


class QueueFullError(UnavailableError):
    """Refused at once, and at no cost."""


class DeadlineExceededError(FoveaError):
    http_status = 504
    grpc_code = StatusCode.DEADLINE_EXCEEDED


class InferenceError(FoveaError):
    """The model failed on a batch."""


class StartError(Exception):
    """The service cannot start as it was asked to; the message says what to change."""


class ModelError(Exception):
    """A model cannot be served; the message is the reason shown for it."""

    def __init__(self, text: str) -> None:
        super().__init__(shown(text))
