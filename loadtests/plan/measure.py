"""How long a batch takes in this process, by its size, while every instance is at work."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import onnxruntime as ort

from loadtests.plan.curve import LIKELY, Point

DTYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(float16)": np.float16}


def measure_points(
    model: Path, provider: str, *, instances: int, max_batch_size: int, repeats: int
) -> tuple[tuple[Point, ...], bool]:
    """Run batches of each size at the same time in as many sessions as the service would have, since neighbours slow
    each other down. A time has in it what an instance does for a batch: items are joined, and the batch is run.

    Args:
        model: an ONNX file whose inputs are uint8 or floats and, but for the batch axis, of fixed shape.
        provider: the execution provider's name.
        repeats: batches of each size that every session runs at least.

    Returns:
        A point for each size, 1, 2, 4, … and the largest; or for the one size that the graph takes. And whether the
        service pads smaller batches to these: where there is but one, and where a size costs time that is new, as with
        CUDA.

    Raises:
        ValueError: the model's inputs are others.
    """
    if provider == "CUDAExecutionProvider":
        ort.preload_dlls()
    sessions = [_session(model, provider) for _ in range(instances)]
    first_dims = {tensor.shape[0] for tensor in sessions[0].get_inputs()}
    fixed = next((dim for dim in first_dims if isinstance(dim, int)), None)
    sizes = [fixed] if fixed else [2**n for n in range((max_batch_size - 1).bit_length())] + [max_batch_size]
    with ThreadPoolExecutor(instances) as threads:
        points = []
        for size in sizes:
            items = [_item(tensor, fixed or 1) for tensor in sessions[0].get_inputs()]
            batch = {name: [item] * (1 if fixed else size) for name, item in items}
            for session in sessions:
                session.run(None, _joined(batch))
            together, runs = Barrier(instances), [0] * instances
            found = [
                threads.submit(_times_s, session, batch, number, runs, repeats, together)
                for number, session in enumerate(sessions)
            ]
            times_ms = 1e3 * np.concatenate([times.result() for times in found])
            likely_ms = tuple(round(float(time), 4) for time in np.quantile(times_ms, LIKELY))
            points.append(Point(batch_size=size, median_ms=round(float(np.median(times_ms)), 4), likely_ms=likely_ms))
    return tuple(points), fixed is not None or provider != "CPUExecutionProvider"


def _session(model: Path, provider: str) -> ort.InferenceSession:
    """As the service opens it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(model), options, [provider])
    if session.get_providers()[0] != provider:
        raise ValueError(f"ONNX Runtime does not run {model} on {provider}")
    return session


def _item(tensor: ort.NodeArg, rows: int) -> tuple[str, np.ndarray[Any, Any]]:
    dims = tensor.shape[1:]
    if tensor.type not in DTYPES or not all(isinstance(dim, int) for dim in dims):
        raise ValueError(
            f"the graph's '{tensor.name}' is {tensor.type} of {tensor.shape}: must be {', '.join(DTYPES)}, and of "
            "fixed shape but for the batch axis"
        )
    values = np.random.default_rng(0).integers(0, 256, (rows, *dims))
    return tensor.name, values.astype(DTYPES[tensor.type])


def _times_s(
    session: ort.InferenceSession,
    items: Mapping[str, Sequence[np.ndarray[Any, Any]]],
    number: int,
    runs: list[int],
    repeats: int,
    together: Barrier,
) -> list[float]:
    """The times of one session's batches, in seconds; it goes on until every session has enough of them."""
    together.wait()
    times_s = []
    while min(runs) < repeats:
        start = time.perf_counter()
        session.run(None, _joined(items))
        times_s.append(time.perf_counter() - start)
        runs[number] += 1
    return times_s


def _joined(items: Mapping[str, Sequence[np.ndarray[Any, Any]]]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.concatenate(rows) if len(rows) > 1 else rows[0] for name, rows in items.items()}
