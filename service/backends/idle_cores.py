"""On a CPU with nothing else to do, all its cores answer a lone row.

As many sessions of one thread as there are cores answer the most rows a second, but one of them leaves the other cores
idle while a single row waits. So the sessions of a version share a wide one, with a thread for every core.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock

import numpy as np

from service.tensors import DTYPES, Array, TensorSpec

Run = Callable[[Sequence[str], Mapping[str, Array]], list[Array]]
"""A session of ONNX Runtime: outputs by name, of inputs."""

WORTH_IT = 0.85
"""Of the narrow session's time for a row, at most, for the wide one to be kept."""
TRIALS = 6
TRIAL_S = 0.1
"""When this much time has gone, no more is tried."""


class IdleCores:
    """Which session runs: the wide one, for one row while no other session runs; else the caller's own."""

    def __init__(self, wide: Run) -> None:
        self._wide = wide
        self._running = 0
        self._lock = Lock()

    def run(self, narrow: Run, outputs: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        with self._lock:
            alone = not self._running
            self._running += 1
        try:
            lone = alone and all(array.shape[:1] == (1,) for array in inputs.values())
            return (self._wide if lone else narrow)(outputs, inputs)
        finally:
            with self._lock:
                self._running -= 1


def is_worth_it(wide: Run, narrow: Run, inputs: Sequence[TensorSpec]) -> bool:
    """Whether the wide session is the faster one for one row: that depends on the graph. Takes its time.

    Args:
        inputs: of the graph, with every axis.
    """
    row = {spec.name: np.zeros([max(1, size) for size in spec.dims], DTYPES[spec.datatype]) for spec in inputs}
    times: dict[Run, list[float]] = {narrow: [], wide: []}
    start = time.perf_counter()
    try:
        for run in times:
            run([], row)
        # The first time is not like the others.
        for _ in range(TRIALS):
            for run, taken in times.items():
                begun = time.perf_counter()
                run([], row)
                taken.append(time.perf_counter() - begun)
            if time.perf_counter() - start > TRIAL_S:
                break
    except Exception:
        # Zeros are nothing to this graph.
        return False
    # The shortest: what other work on this machine takes away only makes a run longer.
    return min(times[wide]) < WORTH_IT * min(times[narrow])
