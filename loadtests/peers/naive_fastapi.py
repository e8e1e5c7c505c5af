"""FastAPI with one ONNX Runtime session, as most people write it."""

from __future__ import annotations

from loadtests.peers.peer import SERVERS, Command, Peer, Setting
from loadtests.peers.protocol import RAW


def _command(setting: Setting) -> Command:
    application = ("fastapi_server:app", "--app-dir", str(SERVERS))
    listen = ("--port", str(setting.http_port), "--log-level", "warning")
    return Command((setting.python, "-m", "uvicorn", *application, *listen), setting.variables)


FASTAPI = Peer(
    name="FastAPI",
    package="fastapi",
    requirements="fastapi",
    protocols=(RAW,),
    configuration="the naive server: one process of uvicorn (uvloop, httptools), a plain function that FastAPI runs in "
    "its threads, one ONNX Runtime session with its defaults, which are all cores for one image; no batching, no "
    "access log",
    command=_command,
)
