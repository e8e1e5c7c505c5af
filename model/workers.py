"""The processes that train one network together: `torchrun … -m model train`. Without torchrun there is one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

TIMEOUT = timedelta(minutes=10)
"""How long one waits for the others, who may be waiting for the first one's evaluation."""


class WorkerError(Exception):
    """The processes cannot train together, or one of them is gone; the message says what to do."""


@dataclass(frozen=True)
class Workers:
    """All processes of a run, seen from one of them.

    Attributes:
        rank: this one's number, from 0. The first one writes what is written.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """This one's part of a batch: every image is in one worker's, and no part has two more than another."""
        return slice(self.rank, batch_size, self.count)

    def parallel(self, net: nn.Module) -> nn.Module:
        """The network to run forward: after backward, its gradients are the mean over the workers."""
        return DistributedDataParallel(net) if self.count > 1 else net

    def take_the_firsts(self, net: nn.Module) -> None:
        """Give the network the weights and the constants that the first worker's has; needs all of them."""
        if self.count > 1:
            for tensor in net.state_dict().values():
                dist.broadcast(tensor, 0)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the workers, of any shape; needs all of them."""
        if self.count == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.count

    def agree(self, asked: bool) -> bool:
        """Whether any of them is asked; needs all of them, so none goes on before the last one is here."""
        return bool(self.mean(torch.tensor(float(asked))) > 0)


ALONE = Workers()


@contextmanager
def join(device: torch.device) -> Iterator[Workers]:
    """Meet the others that torchrun has started; alone where it has not.

    Raises:
        WorkerError: while they trained, another one ended, or did not answer for as long as `TIMEOUT`.
    """
    count = int(os.environ["WORLD_SIZE"]) if launched() else 1
    if count == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # What they agree on goes by the CPUs: it must not wait for what the GPUs have still to do.
        dist.init_process_group("cpu:gloo,cuda:nccl", timeout=TIMEOUT, device_id=device)
    else:
        dist.init_process_group("gloo", timeout=TIMEOUT)
    try:
        yield Workers(rank(), count)
    except RuntimeError as error:
        # Gloo's errors have no class of their own.
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise WorkerError(
                "another worker ended or does not answer, so this one ends too (torchrun tells which failed first); "
                f"--resume continues from the last checkpoint: {' '.join(str(error).split())}"
            ) from error
        raise
    finally:
        dist.destroy_process_group()


def launched() -> bool:
    """Whether torchrun has started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


def rank() -> int:
    """This process's number among the workers on all machines, from 0."""
    return int(os.environ["RANK"]) if launched() else 0


def local_rank() -> int:
    """The same among those on this machine."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def program() -> list[str]:
    """What started this program, up to its own arguments."""
    if not launched():
        return ["python", "-m", "model"]
    machines, workers = os.environ["GROUP_WORLD_SIZE"], os.environ["LOCAL_WORLD_SIZE"]
    where = ["--standalone"] if machines == "1" else ["--nnodes", machines]
    # Without the two dashes, torchrun takes --run for the beginning of an option of its own (Python 3.11's argparse).
    return ["torchrun", *where, "--nproc-per-node", workers, "-m", "--", "model"]
