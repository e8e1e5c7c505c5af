"""The addresses that the service listens on."""

from __future__ import annotations

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
