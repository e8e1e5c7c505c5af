"""What ONNX Runtime alone makes of a model on this machine: no network, no decoding, no batching."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image

from loadtests.machine import cores

BATCH_SIZES = (1, 8)
CPU = "CPUExecutionProvider"


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
    model: Path,
    pixels: np.ndarray[Any, Any],
    arrangements: list[Arrangement],
    duration_s: float,
    cuda: dict[str, str] | None = None,
) -> dict[Arrangement, float]:
    """Images per second in each arrangement, one after the other.

    Args:
        pixels: of one image; the batches are made of it.
        duration_s: for all arrangements together.
        cuda: options of the CUDA execution provider, to run there, on images that are in the GPU's memory already.

    Raises:
        SystemExit: CUDA was asked for and cannot be had.
    """
    sessions = [_session(model, cuda) for _ in range(max(each.sessions for each in arrangements))]
    rates = {}
    with ThreadPoolExecutor(len(sessions)) as threads:
        for arrangement in arrangements:
            batch = np.stack([pixels] * arrangement.batch_size)
            calls = [_call(session, batch, cuda) for session in sessions[: arrangement.sessions]]
            for call in calls:
                call()
            start = time.perf_counter()
            end = start + duration_s / len(arrangements)
            runs = [threads.submit(_run_until, end, call) for call in calls]
            batches = sum(run.result() for run in runs)
            rates[arrangement] = arrangement.batch_size * batches / (time.perf_counter() - start)
    return rates


def _session(model: Path, cuda: dict[str, str] | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    if cuda is None:
        return ort.InferenceSession(str(model), options, [CPU])
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    session = ort.InferenceSession(str(model), options, [("CUDAExecutionProvider", cuda), CPU])
    if session.get_providers()[0] == CPU:
        raise SystemExit("error: CUDA was asked for, but ONNX Runtime runs the model on the CPU")
    return session


def _call(
    session: ort.InferenceSession, batch: np.ndarray[Any, Any], cuda: dict[str, str] | None
) -> Callable[[], object]:
    """What runs the batch once."""
    name = session.get_inputs()[0].name
    if cuda is None:
        return lambda: session.run(None, {name: batch})
    binding = session.io_binding()
    device_id = int(cuda["device_id"])
    binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(batch, "cuda", device_id))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda", device_id)
    return lambda: session.run_with_iobinding(binding)


def _run_until(end: float, call: Callable[[], object]) -> int:
    batches = 0
    while time.perf_counter() < end:
        call()
        batches += 1
    return batches
