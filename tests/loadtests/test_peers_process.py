from __future__ import annotations

import os
import select
import sys
from pathlib import Path

import psutil
import pytest

from loadtests.peers.peer import Command
from loadtests.peers.process import Server, ServerFailedError, free_ports, running
from loadtests.peers.protocol import RAW, NotAnsweredError, Request, ask

ECHO = """
import subprocess, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Echo(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if body == b"exit":
            sys.exit(7)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
HTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
"""
"""A server with a child that does not end with it."""


def echo(port: int) -> Command:
    return Command((sys.executable, "-c", ECHO, str(port)))


def request(body: bytes) -> Request:
    return Request("/predict", {}, body)


def test_a_server_is_watched_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    asked: list[bytes] = []
    with running(
        echo(port), tmp_path, tmp_path / "log", lambda: asked.append(ask(RAW, port, request(b"hello")))
    ) as server:
        assert asked == [b"hello"]
        assert server.cold_start_s > 0
        (child,) = psutil.Process(server.pid).children()
        alone = Server(child.pid, 0.0)
        assert 0 < alone.pss_bytes() < server.pss_bytes()
        assert alone.cpu_s() < server.cpu_s()
        ended = os.pidfd_open(child.pid)
    assert not psutil.pid_exists(server.pid)
    assert select.select([ended], [], [], 60) == ([ended], [], [])
    os.close(ended)


def test_a_server_that_does_not_start_is_said_with_its_log(tmp_path: Path) -> None:
    command = Command((sys.executable, "-c", "raise SystemExit('no such model')"))
    with (
        pytest.raises(ServerFailedError, match="code 1: no such model"),
        running(command, tmp_path, tmp_path / "log", lambda: ask(RAW, free_ports(1)[0], request(b""))),
    ):
        pass


def test_a_server_that_ends_on_the_way_is_said_with_its_code(tmp_path: Path) -> None:
    with pytest.raises(ServerFailedError, match="it ended with code 7"):
        end_it_and_ask_again(tmp_path)


def end_it_and_ask_again(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with running(echo(port), tmp_path, tmp_path / "log", lambda: ask(RAW, port, request(b"hello"))) as server:
        with pytest.raises(NotAnsweredError):
            ask(RAW, port, request(b"exit"))
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
        ask(RAW, port, request(b"hello"))
