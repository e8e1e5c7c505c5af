"""What ONNX Runtime alone makes of a model on this machine: no network, no decoding, no batching."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image

from loadtests.machine import cores

BATCH_SIZES = (1, 8)


def measure_in_process(model: Path, image: Path, duration_s: float) -> dict[int, float]:
    """Images per second at each batch size, with a session of one thread on every core.

    Args:
        model: an ONNX file that takes uint8 (N, H, W, 3).
        image: what the batches are made of.
        duration_s: for all batch sizes together.
    """
    sessions = [_session(model) for _ in range(cores())]
    _, height, width, _ = sessions[0].get_inputs()[0].shape
    with Image.open(image) as decoded:
        pixels = np.asarray(decoded.convert("RGB").resize((width, height)))
    rates = {}
    with ThreadPoolExecutor(len(sessions)) as threads:
        for size in BATCH_SIZES:
            feed = {sessions[0].get_inputs()[0].name: np.stack([pixels] * size)}
            for session in sessions:
                session.run(None, feed)
            start = time.perf_counter()
            end = start + duration_s / len(BATCH_SIZES)
            runs = [threads.submit(_run_until, end, session, feed) for session in sessions]
            batches = sum(run.result() for run in runs)
            rates[size] = size * batches / (time.perf_counter() - start)
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
