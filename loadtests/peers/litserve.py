"""LitServe: FastAPI in front, model processes behind queues."""

from __future__ import annotations

from loadtests.peers.peer import SERVERS, Command, Peer, Setting
from loadtests.peers.protocol import RAW


def _command(setting: Setting) -> Command:
    return Command((setting.python, str(SERVERS / "litserve_server.py")), setting.variables)


LITSERVE = Peer(
    name="LitServe",
    package="litserve",
    requirements="litserve",
    protocols=(RAW,),
    configuration="a worker per core, as its documentation says for CPUs, each a session of one thread; as many API "
    "servers, its default; batches up to the model's maximum, which wait 1 ms for more: without a wait, its default, "
    "idle workers take all the processor time",
    command=_command,
)
