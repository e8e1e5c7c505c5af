"""mosec: an HTTP front and a batcher in Rust, model processes in Python."""

from __future__ import annotations

from loadtests.peers.peer import SERVERS, Command, Peer, Setting
from loadtests.peers.protocol import RAW


def _command(setting: Setting) -> Command:
    listen = ("--address", "127.0.0.1", "--port", str(setting.http_port), "--log-level", "warning")
    return Command((setting.python, str(SERVERS / "mosec_server.py"), *listen), setting.variables)


MOSEC = Peer(
    name="mosec",
    package="mosec",
    requirements="mosec",
    protocols=(RAW,),
    configuration="a process per core with a session of one thread; batches up to the model's maximum, which wait 1 ms "
    "for more, the least it takes",
    command=_command,
)
