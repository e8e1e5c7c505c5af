"""TLS: the certificate that both servers show, and the one that they may ask of a client for."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import StartError


@dataclass(frozen=True)
class Certificates:
    """As they were read; PEM.

    Attributes:
        client_ca: who signs the certificates of clients; None: they need none.
        context: for HTTP.
    """

    chain: bytes
    key: bytes
    client_ca: bytes | None
    context: ssl.SSLContext


class Tls:
    """Certificates in files, which may be replaced at any time.

    Args:
        client_ca: a client must have a certificate that is signed by one of these.

    Raises:
        StartError: they cannot be read, or do not fit together.
    """

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self.reload()
        self.context = _Newest(self)

    def reload(self) -> None:
        """Read the files again, for connections from now on; where that fails, what was read before is kept.

        Raises:
            StartError: as when they were read first.
        """
        self.now = _read(self._certificate, self._key, self._client_ca)


def tls_of(certificate: Path | None, key: Path | None, client_ca: Path | None) -> Tls | None:
    """TLS with the files that are set; None where none is.

    Raises:
        StartError: as for `Tls`, or one of them is missing.
    """
    if certificate and key:
        return Tls(certificate, key, client_ca)
    for name, given, missing in (
        ("CERTIFICATE", certificate, "FOVEA_TLS_KEY"),
        ("KEY", key, "FOVEA_TLS_CERTIFICATE"),
        ("CLIENT_CA", client_ca, "FOVEA_TLS_CERTIFICATE and FOVEA_TLS_KEY"),
    ):
        if given:
            raise StartError(f"FOVEA_TLS_{name}={given}: {missing} must be set too")
    return None


class _Newest(ssl.SSLContext):
    """What a listener holds for all its time: makes each connection's TLS with the certificates of that moment.

    A context of its own for each set, rather than new files in the old one: of that, no CA would ever be forgotten.
    """

    def __new__(cls, tls: Tls) -> _Newest:
        context = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        context._tls = tls
        return context

    _tls: Tls

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        return self._tls.now.context.wrap_bio(*arguments, **options)


def _read(certificate: Path, key: Path, client_ca: Path | None) -> Certificates:
    chain, private = _content("CERTIFICATE", certificate), _content("KEY", key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # With a password nobody is asked for one, whose key needs it.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise StartError(
            f"FOVEA_TLS_CERTIFICATE={certificate}, FOVEA_TLS_KEY={key}: {_reason(error)}; they must be PEM, the "
            "certificate's chain and its key without a password"
        ) from None
    authorities = _content("CLIENT_CA", client_ca) if client_ca else None
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(client_ca)
        except OSError as error:
            raise StartError(f"FOVEA_TLS_CLIENT_CA={client_ca}: {_reason(error)}; must be PEM certificates") from None
    if (chain, private) != (_content("CERTIFICATE", certificate), _content("KEY", key)):
        raise StartError(f"FOVEA_TLS_CERTIFICATE={certificate}: was replaced while it was read")
    return Certificates(chain, private, authorities, context)


def _content(setting: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise StartError(f"FOVEA_TLS_{setting}={file}: cannot be read ({error.strerror})") from error


def _reason(error: OSError) -> str:
    """OpenSSL's, of which only its number is in the error's text."""
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return (reason or str(error)).lower().replace("_", " ")
