from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model.data import Dataset, synthetic
from model.distill import Teachers
from model.evaluate import predict_onnx
from model.export import export
from model.repository import RepositoryError
from model.run import RECIPES, Run, RunError
from model.train import train


@pytest.fixture
def teacher(fastcnn_run: Run, tmp_path: Path) -> Path:
    return export(fastcnn_run, tmp_path / "repository", "teacher", command="").folder / "model.onnx"


def softmax(logits: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(logits).softmax(1)


def test_teachers_answer_together_with_the_mean_of_their_probabilities(shapes: Dataset, teacher: Path) -> None:
    one = softmax(predict_onnx(teacher, shapes.images))
    assert torch.allclose(Teachers([teacher], shapes).probabilities(torch.from_numpy(shapes.images)), one, atol=1e-5)
    together = Teachers([teacher, teacher], shapes).probabilities(torch.from_numpy(shapes.images))
    assert torch.allclose(together, one, atol=1e-5)
    assert torch.allclose(together.sum(1), torch.ones(len(shapes)))


def test_a_learner_follows_its_teacher_and_not_the_labels(shapes: Dataset, teacher: Path, tmp_path: Path) -> None:
    """With labels that are all the same, a run that read them would give that class everywhere."""
    misled = replace(shapes, labels=np.zeros_like(shapes.labels))
    recipe = replace(RECIPES["fastcnn"], epochs=3, averaged_epochs=0, batch_size=9, cutmix=0.0)
    origin = {"command": "", "data": "", "teachers": [str(teacher)]}
    device = torch.device("cpu")
    followed = train(
        misled, None, recipe, tmp_path / "run", device=device, origin=origin, teachers=Teachers([teacher], misled)
    )
    card = export(followed, tmp_path / "followed", "followed", command="").folder.parent / "model_card.md"
    assert f"the mean of the probabilities of `{teacher}`, in the place of the labels" in card.read_text()
    with torch.no_grad():
        found = followed.net(followed.preprocess(torch.from_numpy(shapes.images))).argmax(1)
    taught = torch.from_numpy(predict_onnx(teacher, shapes.images).argmax(1))
    assert (found == taught).float().mean() > 0.5
    assert (found == 0).float().mean() < 0.7


def test_a_teacher_that_does_not_fit_the_data_is_refused(shapes: Dataset, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="takes images of 16 pixels, not of 20"):
        Teachers([teacher], synthetic("train", image_size=20, count=96))
    with pytest.raises(RunError, match=r"its classes are .*; the data's are a, b, c"):
        Teachers([teacher], replace(shapes, classes=("a", "b", "c")))
    with pytest.raises(RepositoryError, match="cannot be read"):
        Teachers([tmp_path / "none.onnx"], shapes)
