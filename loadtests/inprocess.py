"""What ONNX Runtime alone makes of a model on this machine: no network, no decoding, no batching."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image

from loadtests.machine import cores

BATCH_SIZES = (1, 8)


@dataclass(frozen=True)
class Arrangement:
    """So many sessions of one thread at the same time, each with batches of so many images."""

    sessions: int
    batch_size: int


def measure_in_process(model: Path, image: Path, duration_s: float) -> dict[int, float]:
    """Images per second at each batch size, with a session of one thread on every core.

    Args:
        model: an ONNX file that takes uint8 (N, H, W, 3).
        image: what the batches are made of.
        duration_s: for all batch sizes together.
    """
    _, height, width, _ = _session(model).get_inputs()[0].shape
    with Image.open(image) as decoded:
        pixels = np.asarray(decoded.convert("RGB").resize((width, height)))
    arrangements = [Arrangement(cores(), size) for size in BATCH_SIZES]
    rates = measure_arrangements(model, pixels, arrangements, duration_s)
    return {arrangement.batch_size: rate for arrangement, rate in rates.items()}


def measure_arrangements(
    model: Path, pixels: np.ndarray[Any, Any], arrangements: list[Arrangement], duration_s: float
) -> dict[Arrangement, float]:
    """Images per second in each arrangement, one after the other.

    Args:
        pixels: of one image; the batches are made of it.
        duration_s: for all arrangements together.
    """
    sessions = [_session(model) for _ in range(max(each.sessions for each in arrangements))]
    rates = {}
    with ThreadPoolExecutor(len(sessions)) as threads:
        for arrangement in arrangements:
            feed = {sessions[0].get_inputs()[0].name: np.stack([pixels] * arrangement.batch_size)}
            for session in sessions[: arrangement.sessions]:
                session.run(None, feed)
            start = time.perf_counter()
            end = start + duration_s / len(arrangements)
            runs = [threads.submit(_run_until, end, session, feed) for session in sessions[: arrangement.sessions]]
            batches = sum(run.result() for run in runs)
            rates[arrangement] = arrangement.batch_size * batches / (time.perf_counter() - start)
    return rates


def _session(model: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return ort.InferenceSession(str(model), options, ["CPUExecutionProvider"])


def _run_until(end: float, session: ort.InferenceSession, feed: dict[str, np.ndarray]) -> int:
    batches = 0
    while time.perf_counter() < end:
        session.run(None, feed)
        batches += 1
    return batches
