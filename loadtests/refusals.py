"""Requests that the service is too busy for."""

from __future__ import annotations

from typing import cast

import grpc

REFUSALS = ("503: ", "UNAVAILABLE: ")
"""How their errors begin."""

REFUSED = "refused"
"""What locust files the milliseconds under that it took to refuse them: its type; its name is the stage."""

CONNECTION = "connection"
"""What is told in the place of UNAVAILABLE where it was not the service that said so."""


def refused(error: str | None) -> bool:
    """Whether it is what a request was refused with; None: it was answered."""
    return error is not None and error.startswith(REFUSALS)


def refused_call(error: grpc.RpcError) -> bool:
    """Whether the service, or a balancer before it, refused a call; gRPC says UNAVAILABLE of a lost connection too."""
    call = cast(grpc.Call, error)
    if call.code() is not grpc.StatusCode.UNAVAILABLE:
        return False
    # The service's own words come with the request's id, a balancer's as HTTP's status.
    return "x-request-id" in dict(call.trailing_metadata() or ()) or (call.details() or "").endswith("status: 503")


def reason(error: grpc.RpcError) -> str:
    """A failed call's code and message; gRPC's own text has the time in it, and would be another each time."""
    call = cast(grpc.Call, error)
    lost = call.code() is grpc.StatusCode.UNAVAILABLE and not refused_call(error)
    return f"{CONNECTION if lost else call.code().name}: {call.details()}"
