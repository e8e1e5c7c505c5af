"""The server that carries the gRPC services: grpcio's, or a native one in its place."""

from __future__ import annotations

import logging

import grpc.aio

from service.errors import StartError
from service.rpc.known_infer import KnownInfer

log = logging.getLogger("fovea.grpc")

# How long a client may hold a connection that it makes no use of.
CONNECTIONS = [
    ("grpc.max_connection_idle_ms", 10 * 60 * 1000),
    ("grpc.server_handshake_timeout_ms", 20 * 1000),
]
# For ever, with the native server, as long as it answers.
CONNECTIONS_NATIVE = [
    ("grpc.keepalive_time_ms", 60 * 1000),
    ("grpc.keepalive_timeout_ms", 20 * 1000),
    ("grpc.keepalive_permit_without_calls", 1),
]


def create_server(
    transport: str, known: KnownInfer, *, max_request_bytes: int, request_timeout_s: float
) -> grpc.aio.Server:
    """A server to add services and a port to.

    Args:
        transport: "grpcio" or "native".
        known: what the native one answers by itself.

    Raises:
        StartError: the native transport is not installed.
    """
    options = [
        # Without this a second service could share the port, and the requests, unnoticed.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", max_request_bytes),
        ("grpc.max_send_message_length", -1),
        # Calls that one connection may have begun.
        ("grpc.max_concurrent_streams", 1000),
    ]
    if transport == "grpcio":
        return grpc.aio.server(options=options + CONNECTIONS)
    try:
        from service.rpc.native import NativeServer
    except ImportError as error:
        raise StartError(f"FOVEA_GRPC_TRANSPORT=native: {error}; install the extra 'native'") from error
    log.warning(
        "FOVEA_GRPC_TRANSPORT=native takes a message into memory, unpacked, before it looks at "
        "FOVEA_MAX_REQUEST_BYTES: whoever reaches the gRPC port can fill the memory"
    )
    return NativeServer(known, request_timeout_s=request_timeout_s, options=options + CONNECTIONS_NATIVE)
