"""`python -m service.fronts LINK MEMORY`: a front process, started by the engine, which hands it two descriptors."""

from __future__ import annotations

import socket
import sys

import uvloop

from service.fronts.front import run

if __name__ == "__main__":
    link, memory = map(int, sys.argv[1:])
    uvloop.run(run(socket.socket(fileno=link), memory))
