"""Whether a server answers what the model says, before it is measured."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from loadtests.peers.model import Model
from loadtests.peers.protocol import Protocol, ask

IMAGES = 16
TOLERANCE = 1e-3
"""Of a logit, between a server's answer and ONNX Runtime's own."""


class WrongAnswerError(Exception):
    """A server that does not serve the model, and what it said."""


def check_answers(protocol: Protocol, port: int, model: Model, *, relative: float = 0.0) -> None:
    """Several images at the same time, so that they meet in batches: each must get its own logits.

    Args:
        relative: what a logit may differ by beside TOLERANCE, of the largest one: accelerators use fewer bits.

    Raises:
        NotAnsweredError: one got no answer.
        WrongAnswerError: one got another answer than ONNX Runtime itself gives.
    """
    images = drawn_images(model, IMAGES)
    with ThreadPoolExecutor(IMAGES) as threads:
        bodies = list(threads.map(lambda pixels: ask(protocol, port, protocol.request(model, pixels)), images))
    logits = model.logits(np.concatenate(images))
    tolerance = TOLERANCE + relative * float(np.abs(logits).max())
    for expected, body in zip(logits[:, None], bodies, strict=True):
        try:
            answered = protocol.logits(model, body)
        except (ValueError, KeyError) as error:
            raise WrongAnswerError(f"an answer that says nothing: {error}") from None
        if answered.shape != expected.shape or not np.allclose(answered, expected, rtol=0, atol=tolerance):
            raise WrongAnswerError(f"it answered {answered.tolist()}, ONNX Runtime {expected.tolist()}")


def drawn_images(model: Model, count: int) -> list[np.ndarray[Any, Any]]:
    """Pixels drawn at random, the same ones every time: each (1, *shape)."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (1, *model.shape), np.uint8) for _ in range(count)]
