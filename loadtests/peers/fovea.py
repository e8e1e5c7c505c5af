"""Fovea itself, over HTTP and over gRPC with each of its transports."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from loadtests.peers.peer import Command, Peer, Setting
from loadtests.peers.protocol import OIP_GRPC, OIP_HTTP

FRONT_PROCESSES = 2
ROOT = Path(__file__).resolve().parent.parent.parent


def _command(setting: Setting) -> Command:
    arguments = ("-m", "service", "serve", "--model-repository", str(setting.model.repository), "--host", "127.0.0.1")
    ports = ("--http-port", str(setting.http_port), "--grpc-port", str(setting.grpc_port), "--metrics-port", "0")
    return Command((sys.executable, *arguments, *ports, "--log-level", "warning"), {"PYTHONPATH": str(ROOT)})


def _native_command(setting: Setting) -> Command:
    command = _command(setting)
    return replace(command, arguments=(*command.arguments, "--grpc-transport", "native"))


def _fronts_command(setting: Setting) -> Command:
    command = _command(setting)
    return replace(command, arguments=(*command.arguments, "--front-processes", str(FRONT_PROCESSES)))


FOVEA = Peer(
    name="Fovea",
    package="fovea",
    requirements=None,
    protocols=(OIP_HTTP, OIP_GRPC),
    configuration="its defaults, with the variables named above and log level warning, as the others",
    command=_command,
)
FOVEA_NATIVE = Peer(
    name="Fovea native",
    package="fovea",
    requirements=None,
    protocols=(OIP_GRPC,),
    configuration="as Fovea, with the native gRPC transport",
    command=_native_command,
)
FOVEA_FRONTS = Peer(
    name="Fovea fronts",
    package="fovea",
    requirements=None,
    protocols=(OIP_HTTP, OIP_GRPC),
    configuration=f"as Fovea, with {FRONT_PROCESSES} front processes",
    command=_fronts_command,
)
