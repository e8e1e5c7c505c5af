from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from model.data import synthetic
from model.evaluate import predict, predict_onnx
from model.export import export
from model.mirrored import Mirrored
from model.repository import Signature, read_signature
from model.run import Run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(fastcnn_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("repository")
    test = synthetic("test", image_size=16, count=30)
    return export(
        fastcnn_run, repository, "shapes", command="export --mirrored", test=test, test_data="synthetic", mirrored=True
    ).folder


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_logits_are_the_mean_of_both(batch_size: int, folder: Path, fastcnn_run: Run) -> None:
    images = np.random.default_rng(2).integers(0, 256, (batch_size, 16, 16, 3), np.uint8)
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    one, other = (predict(fastcnn_run.net, fastcnn_run.preprocess, each, CPU) for each in (images, mirrored))
    # Else a model that passes over the mirror image would do.
    assert np.abs(one - other).max() > 1e-2 * np.abs(one).max()
    expected = (one + other) / 2
    for found in (predict_onnx(folder / "model.onnx", each) for each in (images, mirrored)):
        assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_network_is_left_as_it_was(fastcnn_run: Run) -> None:
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        before = fastcnn_run.net(x)
        Mirrored(fastcnn_run.net)(x)
        assert torch.equal(fastcnn_run.net(x), before)


def test_it_is_a_model_like_any_other(folder: Path, fastcnn_run: Run) -> None:
    assert read_signature(folder / "model.onnx") == Signature(fastcnn_run.classes, 16)
    card = (folder.parent / "model_card.md").read_text()
    assert "| Logits | the mean of those of each image and of its mirror image |" in card
    assert "fastcnn, 1971000 parameters" in card
