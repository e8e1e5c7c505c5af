"""Every network, from its first weights to its variants."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from model.data import Dataset, synthetic
from model.evaluate import predict_onnx
from model.export import Export, export, parity, to_onnx
from model.golden import draw_photo
from model.images import read_pixels
from model.nets import NETS, build
from model.nets.preprocess import Preprocess
from model.recipe import recipe_for
from model.run import Run
from model.train import train
from model.variants import KINDS
from model.variants.make import compare

SMALLEST = {"alexnet": 64, "vgg16": 32}
HEAVY = ("alexnet", "alexnet_cifar", "vgg16", "googlenet", "resnet18", "resnet50")
"""They take seconds each."""
LIGHT = [*(name for name in NETS if name not in HEAVY), "conv:N=2,M=2,K=1,filters=4-8,F=3,P=1,pool=max2"]
NETWORKS = [*LIGHT, *(pytest.param(name, marks=pytest.mark.system) for name in HEAVY)]


@pytest.fixture(scope="module")
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Export]:
    """A network by name: what it was trained on for a few epochs, and its export."""
    name, folder = request.param, tmp_path_factory.mktemp("network")
    recipe = replace(recipe_for(name), epochs=4, averaged_epochs=0, batch_size=6, lr=1e-3)
    dataset = synthetic("train", image_size=SMALLEST.get(name, 16), count=12)
    origin = {"command": "python -m model train synthetic", "data": "synthetic"}
    run = train(dataset, None, recipe, folder / "run", device=torch.device("cpu"), origin=origin)
    done = export(run, folder / "repository", "net", command="python -m model export")
    assert f"| Network | {name}, " in (done.folder.parent / "model_card.md").read_text()
    return dataset, done


@pytest.mark.parametrize("network", NETWORKS, indirect=True)
def test_it_trains_and_is_exported_with_parity(network: tuple[Dataset, Export]) -> None:
    _, done = network
    assert list(done.parity) == [1, 3, 64]
    assert max(done.parity.values()) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("network", NETWORKS, indirect=True)
def test_it_has_variants(network: tuple[Dataset, Export], kind: str) -> None:
    dataset, done = network
    file = done.folder / "model.onnx"
    proto = KINDS[kind].convert(onnx.load(file), dataset.images)
    onnx.checker.check_model(proto, full_check=True)
    found, expected = predict_onnx(proto.SerializeToString(), dataset.images), predict_onnx(file, dataset.images)
    # After so few epochs logits are hardly apart: int8 is held to its own bound where a network has learned something.
    assert compare(found, expected).error <= (0.5 if kind == "int8" else KINDS[kind].error)
    operators = {(node.domain, node.op_type) for node in proto.graph.node}
    assert {domain for domain, _ in operators} == {""}
    assert (("", "QuantizeLinear") in operators) == (kind == "int8")


@pytest.mark.parametrize("network", LIGHT, indirect=True)
def test_int8_tells_images_apart_as_float32_does(network: tuple[Dataset, Export]) -> None:
    dataset, done = network
    file = done.folder / "model.onnx"
    int8 = KINDS["int8"].convert(onnx.load(file), dataset.images).SerializeToString()
    found, expected = (predict_onnx(each, dataset.images) for each in (int8, file))
    # Without what all images have in common.
    apart = [(logits - logits.mean(0)).ravel() for logits in (found, expected)]
    assert np.corrcoef(*apart)[0, 1] > 0.95


@pytest.mark.parametrize("network", LIGHT, indirect=True)
def test_float16_is_wide_enough(network: tuple[Dataset, Export]) -> None:
    """By ONNX's reference, which computes in half precision; ONNX Runtime does not on a CPU."""
    dataset, done = network
    file = done.folder / "model.onnx"
    images = dataset.images[:3].copy()
    images[0] = 128
    images[1, :, 0::4] = images[1, :, 1::4] = 0
    images[1, :, 2::4] = images[1, :, 3::4] = 255
    evaluator = ReferenceEvaluator(KINDS["float16"].convert(onnx.load(file), images))
    outputs = evaluator.run(None, {"pixels": images})
    assert isinstance(outputs, list)
    assert compare(outputs[0], predict_onnx(file, images)).error <= KINDS["float16"].error


@pytest.mark.system
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["alexnet", "vgg16", "googlenet", "resnet18", "resnet50"])
def test_parity_at_the_size_that_it_was_made_for(name: str) -> None:
    torch.manual_seed(0)
    info = {"classes": [str(number) for number in range(1000)], "image_size": 224}
    preprocess = Preprocess([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    run = Run(Path(name), build(name, 1000, (3, 224, 224)).eval(), preprocess, info)
    errors = parity(run, to_onnx(run), read_pixels(io.BytesIO(draw_photo(224)), 224))
    assert list(errors) == [1, 3, 64]
    assert max(errors.values()) < 1e-4
