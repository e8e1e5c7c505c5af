from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from model.command_line import main
from model.committee import CombineError, combine, mean_of
from model.data import Dataset, synthetic
from model.evaluate import predict_onnx, report
from model.export import export
from model.recipe import RECIPES
from model.repository import RepositoryError, read_signature
from model.train import train
from model.variants import KINDS
from model.variants.make import make_variant

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Versions of two networks that are not alike."""
    repository, runs = tmp_path_factory.mktemp("members"), tmp_path_factory.mktemp("runs")
    dataset = synthetic("train", image_size=16, count=240)
    origin = {"command": "python -m model train synthetic", "data": "synthetic"}
    for name, net, epochs in (("one", "fastcnn", 5), ("two", "lenet", 12)):
        recipe = replace(RECIPES[net], epochs=epochs, averaged_epochs=0, batch_size=24)
        run = train(dataset, None, recipe, runs / name, device=CPU, origin=origin)
        export(run, repository, name, command="python -m model export")
    return [repository / "one" / "1", repository / "two" / "1"]


@pytest.fixture(scope="module")
def test_images() -> Dataset:
    return synthetic("test", image_size=16, count=60)


def test_its_logits_are_the_mean_of_its_members(members: list[Path], test_images: Dataset, tmp_path: Path) -> None:
    made = combine(members, tmp_path, "both", command="combine", test=test_images, test_data="synthetic")
    expected = np.mean([predict_onnx(member / "model.onnx", test_images.images) for member in members], 0)
    for batch_size in (1, 7, 60):
        found = predict_onnx(made.folder / "model.onnx", test_images.images, batch_size)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert made.tested == report(found, test_images.labels, test_images.classes)
    assert made.model_bytes == (made.folder / "model.onnx").stat().st_size


def test_it_is_a_model_as_every_export(members: list[Path], tmp_path: Path) -> None:
    made = combine(members, tmp_path, "both", command="combine")
    assert read_signature(made.folder / "model.onnx") == read_signature(members[0] / "model.onnx")
    assert (made.folder / "golden.jpg").read_bytes() == (members[0] / "golden.jpg").read_bytes()
    with np.load(made.folder / "golden.npz") as golden:
        expected = predict_onnx(made.folder / "model.onnx", golden["pixels"][None])[0]
        np.testing.assert_allclose(golden["logits"], expected, rtol=1e-5)
    assert (tmp_path / "both" / "config.pbtxt").read_text().startswith('name: "both"')
    card = (tmp_path / "both" / "model_card.md").read_text()
    assert "| Members | 2;" in card
    assert card.count("python -m model export") == 2
    assert "### Member 1\n\n#### one" in card


@pytest.mark.system
def test_it_has_an_int8_variant_whose_members_begin_and_end_in_float32(members: list[Path], tmp_path: Path) -> None:
    train_images = synthetic("train", image_size=16, count=240)
    combine([members[0], members[0]], tmp_path, "both", command="combine")
    made = make_variant(
        tmp_path / "both" / "1", "small", KINDS["int8"], command="quantize", train=train_images, calibration_images=100
    )
    graph = onnx.load(made.folder / "model.onnx").graph
    of_output = {output: node for node in graph.node for output in node.output}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    in_float32 = [
        node.name
        for node in layers
        if not (node.input[1] in of_output and of_output[node.input[1]].op_type == "DequantizeLinear")
    ]
    first_and_last = {
        prefix: [n.name for n in layers if n.name.startswith(prefix)] for prefix in ("member1", "member2")
    }
    assert sorted(in_float32) == sorted(name for names in first_and_last.values() for name in (names[0], names[-1]))


def test_members_of_other_classes_are_refused(members: list[Path], tmp_path: Path) -> None:
    other = synthetic("train", image_size=20, count=96)
    recipe = replace(RECIPES["lenet"], epochs=1, batch_size=24)
    run = train(other, None, recipe, tmp_path / "run", device=CPU, origin={"command": "", "data": ""})
    export(run, tmp_path, "other", command="")
    with pytest.raises(CombineError, match=r"other.1: has other classes or another image size than .*one.1"):
        combine([members[0], tmp_path / "other" / "1"], tmp_path, "both", command="combine")
    assert not (tmp_path / "both").exists()


def test_other_opsets_are_refused(members: list[Path]) -> None:
    models = [onnx.load(member / "model.onnx") for member in members]
    del models[1].opset_import[:]
    models[1].opset_import.append(helper.make_opsetid("", 13))
    with pytest.raises(CombineError, match="different ONNX opsets"):
        mean_of(models, read_signature(members[0] / "model.onnx"))


def test_a_member_without_a_golden_sample_is_refused(members: list[Path], tmp_path: Path) -> None:
    bare = tmp_path / "bare" / "1"
    bare.mkdir(parents=True)
    (bare / "model.onnx").write_bytes((members[0] / "model.onnx").read_bytes())
    (bare.parent / "labels.txt").write_bytes((members[0].parent / "labels.txt").read_bytes())
    with pytest.raises(CombineError, match="golden sample cannot be read"):
        combine([bare, members[1]], tmp_path, "both", command="combine")
    with pytest.raises(RepositoryError):
        combine([tmp_path / "none", members[1]], tmp_path, "both", command="combine")


def test_the_command(members: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [str(member.parent) for member in members]
    arguments = ["combine", *entries, "--repository", str(tmp_path), "--name", "both"]
    assert main(arguments) == 0
    assert f"written: {tmp_path / 'both' / '1'}" in capsys.readouterr().out
    assert main([*arguments[:-1], "../both"]) == 1
    assert "error: model name" in capsys.readouterr().err
