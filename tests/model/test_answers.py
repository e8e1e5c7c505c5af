from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

import model.answers
import model.data
from model.answers import answers
from model.data import DataError, synthetic
from model.evaluate import predict
from model.repository import RepositoryError, Signature
from model.run import Run, RunError
from tests.model.conftest import CPU


@pytest.fixture(autouse=True)
def _few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.data, "synthetic", partial(synthetic, count=12))


def test_a_run_answers_on_either_split(fastcnn_run: Run) -> None:
    """On an exported file: test_main.py."""
    dataset, logits = answers(fastcnn_run.folder, "synthetic", "test")
    assert dataset.images.shape == (12, 16, 16, 3)
    assert logits.shape == (12, 3)
    assert np.array_equal(logits, predict(fastcnn_run.net, fastcnn_run.preprocess, dataset.images, CPU))
    of_training, _ = answers(fastcnn_run.folder, "synthetic", "train")
    assert not np.array_equal(of_training.images, dataset.images)


def test_refusals(fastcnn_run: Run, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="its classes are bright, dark; the model's are disc, square, cross"):
        answers(fastcnn_run.folder, str(photos), "test")
    with pytest.raises(RunError, match="nowhere: not a run folder"):
        answers(tmp_path / "nowhere", "synthetic", "test")


def test_a_model_of_features_has_no_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").touch()
    monkeypatch.setattr(model.answers, "read_signature", lambda file: Signature((), 16, features=320))
    with pytest.raises(RepositoryError, match=r"model\.onnx: gives features, and no scores of classes"):
        answers(tmp_path / "model.onnx", "synthetic", "test")
