"""How fast an exported file is on one thread of this CPU, by its CPU time: what else runs here counts little."""

from __future__ import annotations

import time
from pathlib import Path

import onnxruntime as ort

from model.images import Pixels

ROUND_S = 0.3


def one_thread(model: Path | bytes) -> ort.InferenceSession:
    """A session that computes in the thread that calls it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def images_per_s(session: ort.InferenceSession, batch: Pixels) -> float:
    """Images a second of CPU time, over one round of batches (N, H, W, 3) uint8; the first run warms up."""
    feed = {session.get_inputs()[0].name: batch}
    session.run(None, feed)
    runs, start = 0, time.thread_time()
    while (elapsed := time.thread_time() - start) < ROUND_S or not runs:
        session.run(None, feed)
        runs += 1
    return runs * len(batch) / elapsed


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), "this CPU")
