from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

import model.data
import model.speed
import model.table
from model.command_line import main
from model.data import synthetic
from model.evaluate import predict_onnx, report
from model.nets import NETS
from model.run import load_run
from model.table import folder_name, planned_epochs, read_rows

PATTERN = "conv:N=1,M=1,filters=4,F=3,P=1,pool=max2"
GIVEN = ("table", "synthetic", "--image-size", "16", "--rows", "linear", PATTERN, "alexnet_cifar", "--epochs")
EPOCHS = ("linear=2", f"{PATTERN}=1", "alexnet_cifar=0")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(model.data, "synthetic", partial(synthetic, count=24))
    monkeypatch.setattr(model.speed, "ROUND_S", 0.0)
    monkeypatch.chdir(tmp_path)


def table(*arguments: str) -> int:
    return main([*arguments, "--repository", "served", "--runs", "runs"])


def test_a_row_is_trained_exported_and_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert table(*GIVEN, *EPOCHS) == 0
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith(("linear", "conv", "alexnet"))] == [
        "linear: 2 epochs",
        f"{PATTERN}: 1 epochs",
        "alexnet_cifar: not trained",
    ]
    linear, pattern, alexnet = json.loads(Path("runs/table.json").read_text())
    test = synthetic("test", image_size=16, count=24)
    for row, name in ((linear, "linear"), (pattern, folder_name(PATTERN))):
        file = Path("served", name, "1", "model.onnx")
        found = report(predict_onnx(file, test.images), test.labels, test.classes)
        assert row["accuracy"] == found.accuracy
        assert row["model_bytes"] == file.stat().st_size
        assert "python -m model table synthetic" in Path("served", name, "model_card.md").read_text()
    # W is 3x768, b has 3.
    assert (linear["name"], linear["parameters"], linear["mflops"], linear["epochs"]) == ("linear", 2307, 0.002, 2)
    assert linear["training_minutes"] >= 0
    assert (alexnet["accuracy"], alexnet["training_minutes"], alexnet["epochs"]) == (None, None, 0)
    assert all(row["images_per_s"] > 0 and row["ms_at_batch_1"] > 0 for row in (linear, pattern, alexnet))
    assert {path.name for path in Path("served").iterdir()} == {"linear", folder_name(PATTERN)}
    markdown = Path("runs/table.md").read_text()
    assert printed.endswith(markdown)
    assert f"| `linear` | 16x16 | {100 * linear['accuracy']:.1f} % | 2,307 | 0.00 | " in markdown
    assert "| `alexnet_cifar` | 16x16 | not trained here | " in markdown


def test_it_goes_on_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    assert table(*GIVEN[:6], "--epochs", "linear=1") == 0
    (before,) = read_rows(Path("runs/table.json"))
    capsys.readouterr()
    assert table(*GIVEN[:7], "--epochs", "linear=1", f"{PATTERN}=1") == 0
    assert capsys.readouterr().out.startswith("linear: is in runs/table.json already\nconv:")
    rows = read_rows(Path("runs/table.json"))
    assert (rows[0], rows[1].name) == (before, PATTERN)
    assert not Path("served/linear/2").exists()

    # A row of random weights is trained once it is asked for; one that was trained otherwise is refused.
    assert table(*GIVEN[:5], "neocognitron", "--epochs", "neocognitron=0") == 0
    assert table(*GIVEN[:5], "neocognitron", "--epochs", "neocognitron=1") == 0
    assert [row.epochs for row in read_rows(Path("runs/table.json"))] == [1, 1, 1]
    assert table(*GIVEN[:6], "--epochs", "linear=2") == 1
    assert "its recipe is" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "photos"}, "of 3 classes of photos at 16 pixels, not of 3 of synthetic at 16"),
        ({"classes": ["disc", "square"]}, "of 2 classes of synthetic at 16 pixels, not of 3 of synthetic at 16"),
        ({"asked_image_size": 8}, "of 3 classes of synthetic at 8 pixels, not of 3 of synthetic at 16"),
    ],
)
def test_a_table_is_of_one_data_set(
    change: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert table(*GIVEN[:6], "--epochs", "linear=1") == 0
    file = Path("runs/table.json")
    (row,) = json.loads(file.read_text())
    file.write_text(json.dumps([row | change]))
    assert table(*GIVEN[:5], "two_layer", "--epochs", "two_layer=1") == 1
    assert f"{message}: give another --runs, and another --repository\n" in capsys.readouterr().err
    assert json.loads(file.read_text()) == [row | change]


def test_rows_that_do_not_tell_their_data_are_made_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert table(*GIVEN[:6], "--epochs", "linear=1") == 0
    file = Path("runs/table.json")
    (row,) = json.loads(file.read_text())
    file.write_text(json.dumps([{key: row[key] for key in row.keys() - {"data", "classes", "asked_image_size"}}]))
    capsys.readouterr()
    assert table(*GIVEN[:6], "--epochs", "linear=1") == 0
    assert "linear: 1 epochs\n" in capsys.readouterr().out
    (again,) = json.loads(file.read_text())
    assert again.keys() == row.keys()
    # The run was there already.
    assert again["accuracy"] == row["accuracy"]


def test_a_row_may_have_another_loss() -> None:
    rows = ("linear", "linear+svm", f"{PATTERN}+svm")
    epochs = ("linear=1", "linear+svm=2", f"{PATTERN}+svm=1")
    assert table(*GIVEN[:5], *rows, "--epochs", *epochs) == 0
    found = read_rows(Path("runs/table.json"))
    assert [(row.name, row.epochs) for row in found] == [("linear", 1), ("linear+svm", 2), (f"{PATTERN}+svm", 1)]
    assert found[0].parameters == found[1].parameters
    folders = ["linear", "linear_svm", f"{folder_name(PATTERN)}_svm"]
    assert {path.name for path in Path("served").iterdir()} == set(folders)
    recipes = [load_run(Path("runs", folder)).recipe for folder in folders]
    assert [(recipe.net, recipe.loss) for recipe in recipes] == [
        ("linear", "softmax"),
        ("linear", "svm"),
        (PATTERN, "svm"),
    ]
    assert planned_epochs("alexnet+svm", None, 32) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("linear+hinge", "linear+hinge: no loss 'hinge': must be one of softmax, svm"),
        ("linear+", "linear+: no loss '': must be one of softmax, svm"),
        ("nothing+svm", "no network 'nothing'"),
    ],
)
def test_a_row_is_a_network_and_perhaps_a_loss(given: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        table("table", "synthetic", "--rows", given)
    assert f"argument --rows: {message}" in capsys.readouterr().err


def test_what_does_not_take_such_images_is_measured_at_224(monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned_epochs("alexnet", 90, 32) == 0
    assert planned_epochs("vgg16", None, 16) == 0
    assert planned_epochs("alexnet", 90, 64) == 90
    monkeypatch.setattr(model.table, "LARGE_IMAGE_SIZE", 14)
    assert table("table", "synthetic", "--image-size", "8", "--rows", "lenet") == 0
    (row,) = read_rows(Path("runs/table.json"))
    assert (row.image_size, row.accuracy, row.epochs) == (14, None, 0)
    assert not Path("served").exists()


def test_the_recipe_settles_what_is_not_asked_for() -> None:
    assert planned_epochs("fastcnn", None, 32) == 28
    assert planned_epochs("fastcnn", 3, 32) == 3
    assert all(planned_epochs(name, 0, 32) == 0 for name in NETS)


@pytest.mark.parametrize("given", ["linear", "nothing=3", "linear=-1", "linear=many", "linear+hinge=1"])
def test_epochs_are_of_a_network(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        table("table", "synthetic", "--epochs", given)
    assert "argument --epochs: " in capsys.readouterr().err


def test_a_folder_can_have_any_specifications_name() -> None:
    assert folder_name("conv:N=1,M=2,filters=4-8,F=3") == "conv_N_1_M_2_filters_4-8_F_3"
    assert [folder_name(name) for name in NETS] == list(NETS)
