from __future__ import annotations

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from loadtests.refusals import reason, refused, refused_call

FAILED, ITS_ID = grpc.StatusCode.UNAVAILABLE, Metadata(("x-request-id", "1"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, False),
        ("503: queue is full", True),
        ("UNAVAILABLE: queue is full", True),
        ("500: broken", False),
        ("DEADLINE_EXCEEDED: ", False),
        ("ConnectionResetError: ", False),
    ],
)
def test_who_is_refused_is_told_that_the_service_is_busy(error: str | None, expected: bool) -> None:
    assert refused(error) is expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (AioRpcError(FAILED, Metadata(), ITS_ID, "queue is full"), "UNAVAILABLE: queue is full"),
        (AioRpcError(FAILED, Metadata(), Metadata(), "http2 status: 503"), "UNAVAILABLE: http2 status: 503"),
        (AioRpcError(FAILED, Metadata(), Metadata(), "http2 status: 502"), "connection: http2 status: 502"),
        (AioRpcError(FAILED, Metadata(), Metadata(), "Socket closed"), "connection: Socket closed"),
        (AioRpcError(grpc.StatusCode.INTERNAL, Metadata(), ITS_ID, "broken"), "INTERNAL: broken"),
    ],
)
def test_a_lost_connection_is_no_refusal(call: AioRpcError, expected: str) -> None:
    assert reason(call) == expected
    assert refused_call(call) is refused(reason(call)) is expected.startswith("UNAVAILABLE")
