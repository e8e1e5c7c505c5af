"""What one needs to know to read a comparison, for whoever reads it later."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version

from loadtests.machine import describe_machine
from loadtests.peers.answers import IMAGES, TOLERANCE
from loadtests.peers.environment import pinned_version
from loadtests.peers.load import WARM_UP
from loadtests.peers.model import Model
from loadtests.peers.peer import Peer


def describe(models: Sequence[Model], *, rounds: int, duration_s: float, seed: int) -> dict[str, str]:
    """The facts by name."""
    settings = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("FOVEA_"))
    return {
        "Time": f"{datetime.now():%Y-%m-%d %H:%M}",
        "Machine": f"{describe_machine()}; it also ran the load generator",
        "Models": "; ".join(map(_describe_model, models)),
        "Load": "h2load over the loopback address, HTTP/1.1 or gRPC, one request unanswered on each connection; "
        f"{duration_s:g} s after {WARM_UP} requests on each connection to warm up",
        "Request": "the pixels of one image; for Fovea and Triton as a binary tensor of the Open Inference Protocol, "
        "for the others the bytes themselves",
        "Rounds": f"{rounds}; in each of them ONNX Runtime alone and every server, started anew, in an order drawn "
        f"with seed {seed}",
        "Checked after each start": f"the answers to {IMAGES} images sent at the same time are within {TOLERANCE:g} of "
        f"the logits of ONNX Runtime {version('onnxruntime')}",
        "Variables": ", ".join(settings) or "no FOVEA_ variable is set",
    }


def describe_peer(peer: Peer) -> str:
    """Its package, version and configuration."""
    number = pinned_version(peer.requirements, peer.package) if peer.requirements else version(peer.package)
    return f"{peer.package} {number}: {peer.configuration}"


def _describe_model(model: Model) -> str:
    content = model.file.read_bytes()
    return f"{model.name} ({len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()})"
