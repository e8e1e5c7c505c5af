"""TLS on both ports, with certificates that are replaced while the service runs."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.errors import StartError
from service.tls import Tls, tls_of
from tests.repositories import picture, write_model
from tests.service.certificates import Authority, Pair, replace
from tests.service.launch import RunningService, run_to_end, running, until

pytestmark = pytest.mark.skipif(os.environ.get("FOVEA_TEST_GRPC_TRANSPORT") == "native", reason="it has no TLS")


@dataclass(frozen=True)
class Trust:
    """What a client trusts, and shows."""

    authority: Authority
    shown: Pair | None = None

    def http(self, service: RunningService) -> int:
        """A new connection's status."""
        context = ssl.create_default_context(cadata=self.authority.certificate.decode())
        if self.shown:
            context.load_cert_chain(*self.shown.write(Path(service.log.parent), "client"))
        with httpx.Client(verify=context, timeout=60) as client:
            return client.get(f"{service.http}/v2/health/ready").status_code

    def grpc(self, service: RunningService) -> None:
        """Raises grpc.RpcError."""
        shown = (self.shown.key, self.shown.certificate) if self.shown else (None, None)
        credentials = grpc.ssl_channel_credentials(self.authority.certificate, *shown)
        # One of its own: gRPC shares connections among channels that are the same.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.secure_channel(service.grpc, credentials, options) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

    def accepted(self, service: RunningService) -> list[bool]:
        """Over HTTP, over gRPC."""
        outcomes = []
        for attempt in (self.http, self.grpc):
            try:
                attempt(service)
            except (httpx.TransportError, grpc.RpcError):
                outcomes.append(False)
            else:
                outcomes.append(True)
        return outcomes


@contextmanager
def served(folder: Path, **settings: Path) -> Iterator[RunningService]:
    repository = folder / "models"
    write_model(repository)
    with running(repository, may_log="", **settings) as service:
        yield service


def test_both_ports_speak_tls_and_nothing_else(tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.sign().write(tmp_path, "server")
    with served(tmp_path, tls_certificate=certificate, tls_key=key) as service:
        assert service.http.startswith("https://")
        assert Trust(authority).accepted(service) == [True, True]
        assert Trust(Authority("another")).accepted(service) == [False, False]
        with pytest.raises(httpx.TransportError):
            httpx.get(service.http.replace("https", "http"))
        with grpc.insecure_channel(service.grpc) as channel, pytest.raises(grpc.RpcError):
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
        context = ssl.create_default_context(cadata=authority.certificate.decode())
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        assert httpx.get(f"{service.http}/v2/health/live", verify=context).status_code == 200
        ca = tmp_path / "ca.pem"
        ca.write_bytes(authority.certificate)
        image = tmp_path / "red.jpg"
        image.write_bytes(picture("red"))
        ended = run_to_end("classify", "--server", service.grpc, "--ca", str(ca), str(image))
        assert (ended.returncode, ended.stderr) == (0, "")
        assert "red 100.0 %" in ended.stdout


def test_a_client_without_a_certificate_is_refused_where_one_is_asked_for(tmp_path: Path) -> None:
    authority, clients = Authority(), Authority("clients")
    certificate, key = authority.sign().write(tmp_path, "server")
    ca = tmp_path / "clients.pem"
    ca.write_bytes(clients.certificate)
    with served(tmp_path, tls_certificate=certificate, tls_key=key, tls_client_ca=ca) as service:
        assert Trust(authority, clients.sign("a client")).accepted(service) == [True, True]
        assert Trust(authority).accepted(service) == [False, False]
        assert Trust(authority, Authority("others").sign()).accepted(service) == [False, False]


async def test_replaced_certificates_are_for_new_connections(tmp_path: Path) -> None:
    """As Kubernetes replaces them, by a symlink; the client's CA too, and the old one is trusted no more."""
    old, new, old_clients, new_clients = (Authority(str(number)) for number in range(4))
    for name, authority, clients in (("1", old, old_clients), ("2", new, new_clients)):
        (tmp_path / name).mkdir()
        authority.sign().write(tmp_path / name, "server")
        (tmp_path / name / "ca.pem").write_bytes(clients.certificate)
    link = tmp_path / "now"
    link.symlink_to("1")
    files = {"tls_certificate": link / "server.pem", "tls_key": link / "server.key", "tls_client_ca": link / "ca.pem"}
    before, after = Trust(old, old_clients.sign()), Trust(new, new_clients.sign())
    with served(tmp_path, **files) as service:
        assert (before.accepted(service), after.accepted(service)) == ([True, True], [False, False])
        following = tmp_path / "following"
        following.symlink_to("2")
        following.rename(link)
        await until(lambda: "read again" in service.stderr())
        assert (before.accepted(service), after.accepted(service)) == ([False, False], [True, True])
        assert Trust(new, old_clients.sign()).accepted(service) == [False, False]


async def test_a_broken_new_certificate_leaves_the_old_one(tmp_path: Path) -> None:
    authority, new = Authority(), Authority("new")
    certificate, key = authority.sign().write(tmp_path, "server")
    with served(tmp_path, tls_certificate=certificate, tls_key=key) as service:
        replace(certificate, b"not a certificate")
        await until(lambda: "what was read before is kept" in service.stderr())
        assert Trust(authority).accepted(service) == [True, True]
        new.sign().write(tmp_path, "server")
        await until(lambda: "read again" in service.stderr())
        assert Trust(new).accepted(service) == [True, True]


# Files that do not fit


def test_files_that_do_not_fit_are_a_failed_start(tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.sign().write(tmp_path, "server")
    _, other_key = authority.sign().write(tmp_path, "other")
    text = tmp_path / "text"
    text.write_text("not PEM")
    locked_certificate, locked_key = authority.sign(password=b"secret").write(tmp_path, "locked")
    for files, words in (
        ((certificate, other_key, None), "mismatch"),
        ((text, key, None), "FOVEA_TLS_CERTIFICATE="),
        ((certificate, text, None), "FOVEA_TLS_KEY="),
        ((certificate, key, text), "FOVEA_TLS_CLIENT_CA="),
        ((certificate, tmp_path / "nowhere", None), "cannot be read"),
        ((locked_certificate, locked_key, None), "without a password"),
    ):
        with pytest.raises(StartError, match=words):
            Tls(*files)
    assert Tls(certificate, key, None).now.client_ca is None


def test_a_part_alone_is_a_failed_start(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for files, words in (
        ((file, None, None), "FOVEA_TLS_KEY must be set"),
        ((None, file, file), "FOVEA_TLS_CERTIFICATE must be set"),
        ((None, None, file), "FOVEA_TLS_CERTIFICATE and FOVEA_TLS_KEY must be set"),
    ):
        with pytest.raises(StartError, match=words):
            tls_of(*files)
    assert tls_of(None, None, None) is None


def test_the_native_transport_has_no_tls(tmp_path: Path) -> None:
    certificate, key = Authority().sign().write(tmp_path, "server")
    ended = run_to_end("serve", tls_certificate=certificate, tls_key=key, grpc_transport="native")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: FOVEA_GRPC_TRANSPORT=native has no TLS")
