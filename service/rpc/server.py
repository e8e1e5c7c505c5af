"""The server that carries the gRPC services: grpcio's, or a native one in its place."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from service.api_keys import ApiKeys
from service.errors import StartError
from service.lifecycle import Lifecycle
from service.listening import address_of, cannot_listen
from service.pb.fovea.v1 import classifier_pb2, classifier_pb2_grpc
from service.rpc.authentication import Authentication
from service.rpc.classifier import ClassifierServicer
from service.rpc.inference import InferenceServicer
from service.rpc.known_infer import KnownInfer
from service.rpc.registration import Registration
from service.settings import Settings
from service.telemetry import Telemetry
from service.tls import Certificates, Tls

log = logging.getLogger("fovea.grpc")

CLASSIFIER_SERVICE = classifier_pb2.DESCRIPTOR.services_by_name["Classifier"].full_name
INFERENCE_SERVICE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name

# How long a client may hold a connection that it makes no use of.
CONNECTIONS = [
    ("grpc.max_connection_idle_ms", 10 * 60 * 1000),
    ("grpc.server_handshake_timeout_ms", 20 * 1000),
]
# What a client that is no more has begun, is ended.
ALIVE = [
    ("grpc.keepalive_time_ms", 60 * 1000),
    ("grpc.keepalive_timeout_ms", 20 * 1000),
]
# For ever, with the native server, as long as it answers.
CONNECTIONS_NATIVE = [*ALIVE, ("grpc.keepalive_permit_without_calls", 1)]


@dataclass(frozen=True)
class GrpcServer:
    """A server that answers, at its address."""

    server: grpc.aio.Server
    address: str
    health: health.aio.HealthServicer

    async def set_serving(self, serving: bool) -> None:
        """Tell health, of every service."""
        await _set_health(self.health, serving)


@asynccontextmanager
async def grpc_server(
    classifier: ClassifierServicer,
    inference: InferenceServicer,
    known: KnownInfer,
    telemetry: Telemetry,
    lifecycle: Lifecycle,
    settings: Settings,
    keys: ApiKeys | None,
    tls: Tls | None,
    *,
    shared: bool,
) -> AsyncIterator[GrpcServer]:
    """Serve, not yet ready, until the context ends.

    Args:
        known: what the native transport answers by itself.
        keys: without one of them hardly any call is answered; None: every one is.
        tls: None: calls are not encrypted.
        shared: whether other processes listen on the port too.

    Raises:
        StartError: the port cannot be listened on, or the native transport is not installed, or cannot do it.
    """
    logging.getLogger("grpc._cython.cygrpc").addFilter(_may_be_logged)
    authentication = Authentication(keys, telemetry) if keys else None
    server = _create(known, settings, authentication, tls, shared)
    if authentication:
        # Of handlers the first that has one for a call is taken.
        server.add_generic_rpc_handlers((authentication,))
    health_servicer = health.aio.HealthServicer()
    await _set_health(health_servicer, False)
    registration = Registration(server, telemetry, lifecycle, authentication)
    classifier_pb2_grpc.add_ClassifierServicer_to_server(classifier, registration)
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(inference, registration)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, registration)
    names = (CLASSIFIER_SERVICE, INFERENCE_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflection.aio.ReflectionServicer(names), registration)
    address = address_of(settings.host, settings.grpc_port)
    try:
        port = server.add_secure_port(address, _credentials(tls)) if tls else server.add_insecure_port(address)
    except RuntimeError as error:
        raise cannot_listen("grpc", settings.host, settings.grpc_port, error) from error
    await server.start()
    try:
        yield GrpcServer(server, address_of(settings.host, port), health_servicer)
    finally:
        await server.stop(None)


def _may_be_logged(record: logging.LogRecord) -> bool:
    """Not metadata that is no UTF-8, which grpcio logs in full, with a traceback: it may be a key."""
    return not str(record.msg).startswith("Invalid encoding")


async def _set_health(servicer: health.aio.HealthServicer, serving: bool) -> None:
    status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
    for name in ("", CLASSIFIER_SERVICE, INFERENCE_SERVICE):
        await servicer.set(name, status)


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    told = tls.now

    def newer() -> grpc.ServerCertificateConfiguration | None:
        """Asked at each handshake, in a thread of gRPC's."""
        nonlocal told
        now = tls.now
        if now is told:
            return None
        told = now
        return _configuration(now)

    with_client = told.client_ca is not None
    return grpc.dynamic_ssl_server_credentials(
        _configuration(told),
        newer,  # type: ignore[arg-type]  # the stubs do not know of None
        require_client_authentication=with_client,
    )


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(certificates.key, certificates.chain)], root_certificates=certificates.client_ca
    )


def _create(
    known: KnownInfer, settings: Settings, authentication: Authentication | None, tls: Tls | None, shared: bool
) -> grpc.aio.Server:
    """A server to add services and a port to."""
    options = [
        # Without this a second service could share the port, and the requests, unnoticed.
        ("grpc.so_reuseport", int(shared)),
        ("grpc.max_receive_message_length", settings.max_request_bytes),
        ("grpc.max_send_message_length", -1),
        # Calls that one connection may have begun.
        ("grpc.max_concurrent_streams", 1000),
        *_connection_age(settings),
    ]
    if settings.grpc_transport == "grpcio":
        most = ("grpc.max_allowed_incoming_connections", settings.max_connections)
        return grpc.aio.server(options=[*options, *CONNECTIONS, *ALIVE, most])
    if tls:
        raise StartError(
            "FOVEA_GRPC_TRANSPORT=native has no TLS: with FOVEA_TLS_CERTIFICATE it must be grpcio; or leave TLS to "
            "what stands before the service"
        )
    try:
        from service.rpc.native import NativeServer
    except ImportError as error:
        raise StartError(f"FOVEA_GRPC_TRANSPORT=native: {error}; install the extra 'native'") from error
    log.warning(
        "FOVEA_GRPC_TRANSPORT=native takes a message into memory, unpacked, before it looks at "
        "FOVEA_MAX_REQUEST_BYTES: whoever reaches the gRPC port can fill the memory"
    )
    return NativeServer(
        known, authentication, request_timeout_s=settings.request_timeout_s, options=options + CONNECTIONS_NATIVE
    )


def _connection_age(settings: Settings) -> list[tuple[str, int]]:
    """What tells a server how old its connections may grow; nothing, where no age is set."""
    ages = {"age": settings.grpc_max_connection_age_s, "age_grace": settings.grpc_max_connection_age_grace_s}
    given = {name: age_s for name, age_s in ages.items() if age_s is not None}
    if given and settings.grpc_transport == "native":
        names = " and ".join(f"FOVEA_GRPC_MAX_CONNECTION_{name.upper()}_S" for name in given)
        raise StartError(
            f"FOVEA_GRPC_TRANSPORT=native has no age of connections: leave {names} unset, or take the transport grpcio"
        )
    return [(f"grpc.max_connection_{name}_ms", round(1000 * age_s)) for name, age_s in given.items()]
