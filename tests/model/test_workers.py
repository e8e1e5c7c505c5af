"""Several processes train as one does."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model.run import load_run
from model.workers import ALONE, WorkerError, Workers
from tests.model.in_double import MUON, PATTERN, RECIPES_IN_DOUBLE, everything, started

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-W", "error", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module", autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process made of it."""
    folder = tmp_path_factory.mktemp("one")
    everything(folder, ALONE)
    return folder


@pytest.fixture(scope="module")
def two(one: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two made of it, who have gone on with the run that one began, too."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(one / "stopped", folder / "begun by one")
    done = torchrun("tests/model/in_double.py", folder, folder / "begun by one")
    assert done.returncode == 0, done.stderr
    return folder


def torchrun(*arguments: object, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TORCHRUN, *map(str, arguments)], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_run(folder).net.state_dict()


def assert_same(found: Path, expected: Path) -> None:
    for name, tensor in weights(expected).items():
        assert tensor.dtype == torch.float64
        torch.testing.assert_close(weights(found)[name], tensor, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", RECIPES_IN_DOUBLE)
def test_two_workers_end_with_the_weights_of_one(name: str, one: Path, two: Path) -> None:
    assert_same(two / name, one / name)


@pytest.mark.parametrize("name", RECIPES_IN_DOUBLE)
def test_the_first_worker_writes_and_for_all(name: str, one: Path, two: Path) -> None:
    assert {path.name for path in (two / name).iterdir()} == {path.name for path in (one / name).iterdir()}
    found, expected = load_run(two / name).metrics(), load_run(one / name).metrics()
    for key in ("epoch", "step", "loss", "train_accuracy", "held_out_accuracy"):
        assert [line[key] for line in found] == [line[key] for line in expected]


def test_a_run_goes_on_with_another_number_of_workers(one: Path, two: Path, tmp_path: Path) -> None:
    """All stop after the step in which one is interrupted: see `stopped`."""
    assert_same(two / "begun by one", one / "muon")
    shutil.copytree(two / "stopped", tmp_path / "begun by two")
    started(MUON, tmp_path / "begun by two", ALONE)
    assert_same(tmp_path / "begun by two", one / "muon")


def test_each_image_is_seen_once_an_epoch(one: Path, two: Path) -> None:
    alone = torch.load(one / "seen by 0.pt")
    shares = [torch.load(two / f"seen by {rank}.pt") for rank in range(2)]
    for epoch in (slice(0, 10), slice(10, 20)):
        assert sorted(itertools.chain(*alone[epoch])) == list(range(90))
    assert len(alone) == 20
    for batch, first, second in zip(alone, *shares, strict=True):
        assert (first, second) == (batch[0::2], batch[1::2])


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shares_make_up_the_batch(count: int) -> None:
    shares = [range(20)[Workers(rank, count).share(20)] for rank in range(count)]
    assert sorted(itertools.chain(*shares)) == list(range(20))
    assert {len(share) for share in shares} <= {20 // count, 20 // count + 1}


def test_too_many_workers_for_a_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="batches of 9 images are too small for 5 workers: each needs 2"):
        started(PATTERN, tmp_path / "run", Workers(0, 5))
    assert not (tmp_path / "run").exists()
