from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import model.data
from model.command_line import main
from model.data import synthetic
from model.run import Run, load_run, read_info

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_photos_to_a_repository(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "train" / "dark" / "broken.jpg").touch()
    folder, repository = tmp_path / "run", tmp_path / "repository"
    assert (
        run("train", photos, "--run", folder, "--net", "lenet", "--epochs", 12, "--skip-broken", "--hold-out", 2) == 0
    )
    told = capsys.readouterr().out
    assert "skipped 1 broken files\n22 images of 2 classes, lenet for 12 epochs" in told
    assert told.endswith(f"\ntrained in {load_run(folder).training_time()}\n")

    assert run("evaluate", folder, photos, "--json") == 0
    of_run = json.loads(capsys.readouterr().out)
    assert of_run["images"] == 8
    assert of_run["accuracy"] == 1.0
    assert of_run["class_accuracy"] == {"bright": 1.0, "dark": 1.0}

    assert run("export", folder, "--repository", repository, "--name", "light", "--data", photos) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert [line.split(":")[0] for line in printed.out.splitlines()] == [
        "parity with PyTorch, relative",
        "accuracy",
        "written",
        "next",
    ]
    assert f"1.0000 on 8 images (test split of {photos})" in printed.out
    assert f"fovea serve --model-repository {repository}" in printed.out

    file = repository / "light" / "1" / "model.onnx"
    assert run("evaluate", file, photos, "--json") == 0
    of_file = json.loads(capsys.readouterr().out)
    assert of_file["confusion"] == of_run["confusion"]
    assert run("evaluate", file, photos) == 0
    assert capsys.readouterr().out.startswith("accuracy           1.0000  (8 images)")

    (photos / "train" / "dim").mkdir()
    assert run("evaluate", file, photos) == 1
    assert "its classes are bright, dark, dim; the model's are bright, dark" in capsys.readouterr().err


def test_the_given_arguments_are_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a run"
    assert run("train", "synthetic", "--run", folder, "--net", "lenet", "--epochs", 1, "--image-size", 16) == 0
    info = read_info(folder)
    command = f"python -m model train synthetic --run '{folder}' --net lenet --epochs 1 --image-size 16"
    assert (info["command"], info["data"], info["skip_broken"]) == (command, "synthetic", False)
    assert run("train", "synthetic", "--run", folder) == 1
    assert "holds a run already; --resume continues it" in capsys.readouterr().err


@pytest.fixture
def few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The synthetic set with 30 images a split."""
    monkeypatch.setattr(model.data, "synthetic", partial(synthetic, count=30))


@pytest.mark.usefixtures("few_shapes")
def test_a_recipe_changed_by_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    specification = "conv:N=1,M=2,filters=4-8,F=3,P=1,pool=max2"
    given = ["--net", specification, "--image-size", 16, "--epochs", 1, "--optimizer", "adamw", "--schedule"]
    given += ["one-cycle", "--loss", "svm", "--l1", 0.001, "--lr", 0.002]
    assert run("train", "synthetic", "--run", tmp_path / "run", *given) == 0
    assert f"30 images of 3 classes, {specification} for 1 epochs" in capsys.readouterr().out
    recipe = load_run(tmp_path / "run").recipe
    assert (recipe.net, recipe.optimizer, recipe.schedule, recipe.loss) == (specification, "adamw", "one-cycle", "svm")
    assert (recipe.lr, recipe.l1, recipe.l2, recipe.averaged_epochs) == (0.002, 0.001, 0.01, 0)
    assert run("train", "--resume", "--run", tmp_path / "run") == 0

    assert run("train", "synthetic", "--run", tmp_path / "fast", "--loss", "svm", "--epochs", 1) == 0
    recipe = load_run(tmp_path / "fast").recipe
    assert (recipe.net, recipe.optimizer, recipe.loss, recipe.label_smoothing) == ("fastcnn", "muon", "svm", 0.0)

    assert run("train", "synthetic", "--run", tmp_path / "slow", "--epochs", 1, "--lr", 0.25) == 0
    changed = load_run(tmp_path / "slow").recipe
    assert changed.lr == 0.5 * recipe.lr
    assert changed.muon_lr == pytest.approx(0.5 * 0.17)


def test_a_real_interrupt_and_a_resume_without_flags(photos: Path, tmp_path: Path) -> None:
    """Where in the 300 steps the signal arrives makes no difference."""
    given = [photos, "--net", "lenet", "--epochs", 150, "--image-size", 16, "--hold-out", 2, "--seed", 5]
    stopped, straight = tmp_path / "stopped", tmp_path / "straight"
    command = [sys.executable, "-W", "error", "-m", "model", "train", *map(str, given), "--run", str(stopped)]
    # As many threads as the tests themselves have: their sums would differ in the last bit.
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=one_thread, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        seen = b""
        while b"epoch 2/150" not in seen:
            seen += process.stderr.read(1)
            assert process.poll() is None, seen.decode()
        process.send_signal(signal.SIGINT)
        message = process.stderr.read().decode()
    assert process.returncode == 130
    assert "Traceback" not in message
    assert message.strip().splitlines()[-1].endswith(f"to continue: python -m model train --resume --run {stopped}")
    step = torch.load(stopped / "checkpoint.pt", weights_only=True)["step"]
    assert 2 <= step < 300

    assert run("train", "--resume", "--run", stopped) == 0
    assert run("train", *given, "--run", straight) == 0
    resumed, expected = load_run(stopped), load_run(straight)
    for name, tensor in expected.net.state_dict().items():
        assert torch.equal(resumed.net.state_dict()[name], tensor)
    assert [line["epoch"] for line in resumed.metrics()] == list(range(1, 151))
    assert resumed.info["command"].endswith(f"--run {stopped}")


@pytest.fixture
def finished(fastcnn_run: Run, tmp_path: Path) -> Path:
    shutil.copytree(fastcnn_run.folder, tmp_path / "finished")
    return tmp_path / "finished"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["photos"], "was started with data synthetic, not photos"),
        (["--net", "lenet"], "was started with --net fastcnn, not lenet"),
        (["--epochs", "9"], "was started with --epochs 1, not 9"),
        (["--seed", "1"], "was started with --seed 0, not 1"),
        (["--batch-size", "8"], "was started with --batch-size 9, not 8"),
        (["--image-size", "32"], "was started with --image-size 16, not 32"),
        (["--hold-out", "5"], "was started with --hold-out 0, not 5"),
        (["--skip-broken"], "was started with --skip-broken False, not True"),
        (["--optimizer", "adam"], "was started with --optimizer muon, not adam"),
        (["--schedule", "step"], "was started with --schedule linear, not step"),
        (["--lr", "0.1"], "was started with --lr 0.5, not 0.1"),
        (["--l1", "0.1"], "was started with --l1 0.0, not 0.1"),
    ],
)
def test_resume_refuses_to_change_a_run(
    given: list[str], message: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", "--resume", "--run", finished, *given) == 1
    assert message in capsys.readouterr().err


def test_resume_tells_when_the_data_has_changed(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its 96 images were not those that 'synthetic' gives, so the flags fit and the pixels do not."""
    assert run("train", "synthetic", "--resume", "--run", finished, "--epochs", 1) == 1
    assert "has the data changed?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--run", "new"], "no data given"),
        (["train", "nowhere", "--run", "new"], "nowhere: no such folder"),
        (["train", "--resume", "--run", "new"], "new: no checkpoint to resume"),
        (["train", "synthetic", "--run", "new", "--hold-out", "9999"], "cannot hold out 9999 of 1536"),
        (
            ["train", "synthetic", "--run", "new", "--net", "lenet", "--image-size", "9"],
            "lenet: an input of 3x9x9 is too small",
        ),
        (
            ["train", "synthetic", "--run", "new", "--net", "linear", "--optimizer", "muon"],
            "optimizer muon: is for the filters of convolutions",
        ),
        (["train", "synthetic", "--run", "new", "--l2", "0.1"], "l2 0.1: optimizer muon has a decay of its own"),
        (["evaluate", "nowhere", "synthetic"], "nowhere: not a run folder"),
        (["export", "nowhere", "--repository", "r", "--name", "m"], "nowhere: not a run folder"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a missing device")
def test_a_missing_device_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("train", "synthetic", "--run", tmp_path, "--device", "cuda") == 1
    assert "PyTorch finds no CUDA device" in capsys.readouterr().err


def test_a_worker_without_a_device_of_its_own_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    assert run("train", "synthetic", "--run", tmp_path) == 1
    assert capsys.readouterr().err == "worker 2: error: there are 2 CUDA devices here, and more workers than that\n"


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--epochs", "0", "0 is too small: must be 1 or more"),
        ("--batch-size", "1", "1 is too small: must be 2 or more"),
        ("--seed", str(2**63), "9223372036854775808 is too large: must be 9223372036854775807 or less"),
        ("--image-size", "0", "0 is too small: must be 1 or more"),
        ("--hold-out", "-1", "-1 is too small: must be 0 or more"),
        ("--cutout", "-1", "-1 is too small: must be 0 or more"),
        ("--epochs", "two", "'two' is not a whole number"),
        ("--net", "resnet", "no network 'resnet': must be one of linear, two_layer, colour_histogram"),
        ("--net", "conv:N=1,M=1", "conv:N=1,M=1: conv needs filters=…, F=…"),
        ("--optimizer", "newton", "invalid choice: 'newton'"),
        ("--lr", "0", "0 is too small: must be more than 0"),
        ("--lr", "fast", "'fast' is not a number"),
        ("--l1", "-1", "-1 is too small: must be 0 or more"),
        ("--l2", "nan", "'nan' is not a number"),
        ("--cutmix", "2", "2 is no share: must be from 0 to 1"),
    ],
)
def test_arguments_are_validated(flag: str, value: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("train", "synthetic", "--run", "new", flag, value)
    assert stopped.value.code == 2
    assert f"argument {flag}: {message}" in capsys.readouterr().err


def test_export_with_features_publishes_both(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.data, "synthetic", partial(synthetic, count=12))
    repository = tmp_path / "repository"
    given = (finished, "--repository", repository, "--name", "shapes", "--data", "synthetic")
    # Of features, mirror images are no part.
    assert run("export", *given, "--features", "--mirrored") == 0
    told = capsys.readouterr().out
    cards = {path.parent.name: path.read_text() for path in repository.glob("*/model_card.md")}
    assert {name for name, card in cards.items() if "| Logits | the mean" in card} == {"shapes"}
    assert {path.name for path in repository.iterdir()} == {"shapes", "shapes_features"}
    assert "neighbours with the same label, of 12 images" in told
    assert told.count("parity with PyTorch") == told.count("written: ") == 2
    file = repository / "shapes_features" / "1" / "model.onnx"
    assert run("evaluate", file, "synthetic") == 0
    assert capsys.readouterr().out in told
    assert run("evaluate", file, "synthetic", "--json") == 0
    assert json.loads(capsys.readouterr().out).keys() == {"images", "features", "pixels"}

    assert run("quantize", repository / "shapes_features", "--precision", "float16") == 1
    assert "shapes_features: gives features; what has variants is a classifier" in capsys.readouterr().err
    assert run("combine", repository / "shapes_features", "--repository", repository, "--name", "mean") == 1
    assert "gives features; what can be combined are classifiers" in capsys.readouterr().err
