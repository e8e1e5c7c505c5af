"""Where a network is trained."""

from __future__ import annotations

import torch

from model.run import RunError
from model.workers import WorkerError, local_rank


def device_for(name: str) -> torch.device:
    """The device that is meant by "cpu", "cuda" or "auto", for this one of the workers.

    Raises:
        RunError: there is no CUDA device.
        WorkerError: there are fewer of them than workers on this machine.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise RunError("--device cuda: PyTorch finds no CUDA device here")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank() >= torch.cuda.device_count():
        raise WorkerError(f"there are {torch.cuda.device_count()} CUDA devices here, and more workers than that")
    return torch.device("cuda", local_rank())
