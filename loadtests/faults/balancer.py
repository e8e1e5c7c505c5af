"""HAProxy before several services, over HTTP and over gRPC."""

from __future__ import annotations

import csv
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAM = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
CONFIG = """\
global
    stats socket {control} level admin
defaults
    mode http
    balance roundrobin
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option httpchk GET /v2/health/ready
    default-server check inter 500ms fall 2 rise 1
frontend http
    bind fd@{http}
    default_backend http
backend http
    {http_servers}
frontend grpc
    bind fd@{grpc} proto h2
    default_backend grpc
backend grpc
    {grpc_servers}
"""
BACKENDS = ("http", "grpc")


def missing() -> str:
    """Why there can be none; empty if it can."""
    return "" if PROGRAM else "haproxy is not installed"


@dataclass(frozen=True)
class Balancer:
    """A balancer that answers; `http` and `grpc` are its addresses."""

    http: str
    grpc: str
    control: Path

    def drain(self, server: str) -> None:
        """Give a server no more requests: what a pod's end is to a Service."""
        for backend in BACKENDS:
            self._say(f"set server {backend}/{server} state drain")

    def restore(self, server: str) -> None:
        for backend in BACKENDS:
            self._say(f"set server {backend}/{server} state ready")

    def requests(self, server: str) -> int:
        """Those that it is answering."""
        return sum(int(row["scur"]) for row in self._table() if row["svname"] == server)

    def up(self, server: str) -> bool:
        return all(row["status"] == "UP" for row in self._table() if row["svname"] == server)

    def _table(self) -> list[dict[str, str]]:
        return list(csv.DictReader(self._say("show stat").removeprefix("# ").splitlines()))

    def _say(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.control))
            connection.sendall(command.encode() + b"\n")
            with connection.makefile() as answer:
                return answer.read()


@contextmanager
def balancing(services: Mapping[str, tuple[int, int]]) -> Iterator[Balancer]:
    """A balancer until the context ends.

    Args:
        services: ports of HTTP and gRPC by the server's name.
    """
    assert PROGRAM
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in BACKENDS]
        addresses = [f"127.0.0.1:{listener.getsockname()[1]}" for listener in listeners]
        config = CONFIG.format(
            control=folder / "control",
            http=listeners[0].fileno(),
            grpc=listeners[1].fileno(),
            http_servers="\n    ".join(f"server {name} 127.0.0.1:{http}" for name, (http, _) in services.items()),
            grpc_servers="\n    ".join(
                f"server {name} 127.0.0.1:{grpc} proto h2 check-proto h1 port {http}"
                for name, (http, grpc) in services.items()
            ),
        )
        (folder / "haproxy.cfg").write_text(config)
        command = [PROGRAM, "-db", "-f", str(folder / "haproxy.cfg")]
        fds = [listener.fileno() for listener in listeners]
        log = stack.enter_context((folder / "log").open("w"))
        process = subprocess.Popen(command, pass_fds=fds, stdout=log, stderr=log)
        try:
            while process.poll() is None and not (folder / "control").is_socket():
                time.sleep(0.01)
            yield Balancer(f"http://{addresses[0]}", addresses[1], folder / "control")
            assert process.poll() is None, (folder / "log").read_text()
        finally:
            process.terminate()
            process.wait()
