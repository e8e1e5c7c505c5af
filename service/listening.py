"""The addresses that the service listens on."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from service.errors import StartError


def address_of(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def cannot_listen(what: str, host: str, port: int, error: Exception) -> StartError:
    """Args:
    what: the port's part of its setting's name.
    """
    return StartError(
        f"FOVEA_{what.upper()}_PORT={port}: cannot listen on {address_of(host, port)} ({error}); stop what uses it, "
        f"choose another port (0 takes a free one), or look at FOVEA_HOST={host}"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reserve(what: str, host: str, port: int) -> socket.socket:
    """Take a port, 0 any, that several processes are to listen on; it stays taken until the socket is closed.

    Raises:
        StartError: somebody else listens on it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # Nobody may share this one: a port that is shared already is somebody else's.
        with socket.create_server((host, port), family=family) as alone:
            port = alone.getsockname()[1]
        reserved = socket.socket(family, socket.SOCK_STREAM)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((host, port))
    except OSError as error:
        raise cannot_listen(what, host, port, error) from error
    return reserved
