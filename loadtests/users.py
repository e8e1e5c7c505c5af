"""The users that a load test may have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loadtests.target import Target


@dataclass(frozen=True)
class UserKind:
    """One class of the locustfile.

    Attributes:
        name: as results are filed.
        locust_class: its name.
        address: where its requests go, in the form that it takes.
        sends_tensors: it must be told a model.
    """

    name: str
    locust_class: str
    address: Callable[[Target], str]
    sends_tensors: bool = False


def _http(target: Target) -> str:
    return target.http


def _grpc(target: Target) -> str:
    return target.grpc


USERS = {
    "http": UserKind("HTTP", "HttpUser", _http),
    "grpc": UserKind("gRPC", "GrpcUser", _grpc),
    "grpc-stream": UserKind("gRPC-stream", "GrpcStreamUser", _grpc),
    "tensors-http": UserKind("tensors-HTTP", "TensorsHttpUser", _http, sends_tensors=True),
    "tensors-grpc": UserKind("tensors-gRPC", "TensorsGrpcUser", _grpc, sends_tensors=True),
}
