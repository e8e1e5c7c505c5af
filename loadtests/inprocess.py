"""What ONNX Runtime alone makes of a model on this machine, without a network or a batcher."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from loadtests.decoder import Decoder

CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Arrangement:
    """So many sessions of one thread at the same time, each with batches of so many images."""

    sessions: int
    batch_size: int


def measure_decoding_too(
    model: Path, image: bytes, decoder: Decoder, arrangements: list[Arrangement], duration_s: float
) -> dict[Arrangement, float]:
    """Images per second in each arrangement, one after the other, where each session's thread decodes its batches.

    Args:
        image: a JPEG.
        duration_s: for all arrangements together.
    """
    sessions = _sessions(model, arrangements)

    def call(session: ort.InferenceSession, batch_size: int) -> Callable[[], object]:
        name = session.get_inputs()[0].name
        return lambda: session.run(None, {name: np.stack([decoder.decode(image) for _ in range(batch_size)])})

    return _measure(sessions, arrangements, call, duration_s)


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
    sessions = _sessions(model, arrangements, cuda)

    def call(session: ort.InferenceSession, batch_size: int) -> Callable[[], object]:
        return _call(session, np.stack([pixels] * batch_size), cuda)

    return _measure(sessions, arrangements, call, duration_s)


def _measure(
    sessions: list[ort.InferenceSession],
    arrangements: list[Arrangement],
    call: Callable[[ort.InferenceSession, int], Callable[[], object]],
    duration_s: float,
) -> dict[Arrangement, float]:
    rates = {}
    with ThreadPoolExecutor(len(sessions)) as threads:
        for arrangement in arrangements:
            calls = [call(session, arrangement.batch_size) for session in sessions[: arrangement.sessions]]
            for each in calls:
                each()
            end = time.perf_counter() + duration_s / len(arrangements)
            runs = [threads.submit(_batches_per_s, end, each) for each in calls]
            rates[arrangement] = arrangement.batch_size * sum(run.result() for run in runs)
    return rates


def _sessions(
    model: Path, arrangements: list[Arrangement], cuda: dict[str, str] | None = None
) -> list[ort.InferenceSession]:
    return [_session(model, cuda) for _ in range(max(each.sessions for each in arrangements))]


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


def _batches_per_s(end: float, call: Callable[[], object]) -> float:
    """Over this thread's own time: the last batch goes beyond the end, and not as far on every thread."""
    batches, start = 0, time.perf_counter()
    while (now := time.perf_counter()) < end or not batches:
        call()
        batches += 1
    return batches / (now - start)
