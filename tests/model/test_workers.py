"""Several processes train as one does."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from model.command_line import main
from model.run import load_run
from model.workers import ALONE, WorkerError, Workers, program
from tests.model.in_double import MUON, PATTERN, RECIPES_IN_DOUBLE, everything, started

ROOT = Path(__file__).parents[2]
LAUNCHER = [sys.executable, "-W", "error", "-m", "torch.distributed.run"]
TORCHRUN = [*LAUNCHER, "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


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


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*TORCHRUN, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(folder / "checkpoint.pt", weights_only=True)["net"])


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


def test_an_image_is_seen_once_an_epoch_or_left_over_for_another(one: Path, two: Path) -> None:
    alone = torch.load(one / "seen by 0.pt")
    shares = [torch.load(two / f"seen by {rank}.pt") for rank in range(2)]
    assert len(alone) == 20
    first_epoch, second_epoch = ([*itertools.chain(*steps)] for steps in (alone[:10], alone[10:]))
    for seen in (first_epoch, second_epoch):
        assert len(seen) == len(set(seen)) == 90
    assert {*first_epoch, *second_epoch} == set(range(95))
    for batch, first, second in zip(alone, *shares, strict=True):
        assert (first, second) == (batch[0::2], batch[1::2])


def test_all_have_the_features_that_the_first_one_learned(two: Path) -> None:
    for rank in range(2):
        found = torch.load(two / f"features of {rank}.pt")
        assert {"mean", "std", "features.0.offset", "features.0.words.weight"} <= found.keys()
        assert all((tensor == 1).all() for tensor in found.values())


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shares_make_up_the_batch(count: int) -> None:
    shares = [range(20)[Workers(rank, count).share(20)] for rank in range(count)]
    assert sorted(itertools.chain(*shares)) == list(range(20))
    assert {len(share) for share in shares} <= {20 // count, 20 // count + 1}


def test_too_many_workers_for_a_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="batches of 9 images are too small for 5 workers: each needs 2"):
        started(PATTERN, tmp_path / "run", Workers(0, 5))
    assert not (tmp_path / "run").exists()


def test_the_command_that_started_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    assert program() == ["python", "-m", "model"]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    assert shlex.join(program()) == "torchrun --standalone --nproc-per-node 2 -m -- model"
    monkeypatch.setenv("GROUP_WORLD_SIZE", "3")
    assert shlex.join(program()) == "torchrun --nnodes 3 --nproc-per-node 2 -m -- model"


@pytest.mark.system
@pytest.mark.timeout(300)
def test_the_documented_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = re.findall(r"```sh\n(.*)\n```", (ROOT / "docs" / "training.md").read_text())
    program, *arguments = shlex.split(command)
    assert program == ".venv/bin/torchrun"
    done = subprocess.run(
        [*LAUNCHER, *arguments], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0].endswith("in batches of 128 on cpu, shared by 2 workers")
    assert lines[-1].startswith("trained in ")
    assert [line.split()[1] for line in lines[1:-1]] == ["1", "2"]
    assert done.stderr.count("epoch 2/2:   0%") == 1
    run = load_run(tmp_path / "checkpoints" / "two")
    assert run.info["command"] == command.removeprefix(".venv/bin/")


@pytest.mark.system
@pytest.mark.timeout(300)
def test_with_batch_normalisation_two_workers_are_as_good_as_one(tmp_path: Path) -> None:
    """Within 5 points on 300 images, where two models of 95 % differ by 1.8 points by chance (standard deviation)."""
    given = ["train", "synthetic", "--image-size", "16", "--hold-out", "300", "--epochs", "2", "--averaged-epochs", "1"]
    assert main([*given, "--run", str(tmp_path / "one")]) == 0
    done = torchrun("-m", "--", "model", *given, "--run", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    one, two = (load_run(tmp_path / name).metrics() for name in ("one", "two"))
    assert one[-1]["held_out_accuracy"] > 0.9
    assert [line["held_out_accuracy"] for line in two[-2:]] == pytest.approx(
        [line["held_out_accuracy"] for line in one[-2:]], abs=0.05
    )


ENDS = {
    "the first is killed": (0, signal.SIGKILL),
    "the second is killed": (1, signal.SIGKILL),
    "the second hangs": (1, signal.SIGSTOP),
}
IMPATIENT = """
import datetime, sys, model.workers
from model.command_line import main
model.workers.TIMEOUT = datetime.timedelta(seconds=3)
sys.exit(main())
"""


@pytest.mark.system
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ENDS)
def test_a_worker_that_is_gone_ends_the_job_and_the_run_goes_on(how: str, photos: Path, tmp_path: Path) -> None:
    lost, number = ENDS[how]
    given = ["train", str(photos), "--run", "run", "--net", "lenet", "--epochs", "150", "--image-size", "16"]
    command = [*TORCHRUN, "--shutdown-timeout", "2", "--no-python", "--", sys.executable, "-c", IMPATIENT, *given]
    with subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as launcher:
        assert launcher.stderr is not None
        seen = b""
        while b"epoch 2/150" not in seen:
            seen += launcher.stderr.read(1)
            assert launcher.poll() is None, seen.decode()
        for worker in psutil.Process(launcher.pid).children():
            if worker.environ()["RANK"] == str(lost):
                worker.send_signal(number)
        said = launcher.stderr.read().decode()
    assert launcher.returncode == 1
    tell = re.findall(r"(worker 1: )?error: another worker ended or does not answer.* --resume continues from", said)
    assert tell == ["" if lost else "worker 1: "]
    assert f"rank      : {lost} (local_rank: {lost})\n  exitcode  : -9" in said

    assert main(["train", "--resume", "--run", str(tmp_path / "run")]) == 0
    assert [line["epoch"] for line in load_run(tmp_path / "run").metrics()] == list(range(1, 151))
