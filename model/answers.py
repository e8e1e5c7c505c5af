"""What a run or an exported file answers on labelled images."""

from __future__ import annotations

from pathlib import Path

import torch

from model.data import Dataset, load_classes
from model.evaluate import Logits, predict, predict_onnx
from model.repository import RepositoryError, read_signature
from model.run import load_run


def answers(model: Path, data: str, split: str) -> tuple[Dataset, Logits]:
    """The labelled images, and the logits (N, K) float32 of each.

    Args:
        model: a run's folder, or a model.onnx in a model repository.

    Raises:
        RunError, RepositoryError: it is neither, or a model of features.
        DataError: the data cannot be loaded, or has other classes than the model.
    """
    if model.is_file():
        signature = read_signature(model)
        if signature.features:
            raise RepositoryError(f"{model}: gives features, and no scores of classes")
        dataset = load_classes(data, split, signature.classes, image_size=signature.image_size)
        return dataset, predict_onnx(model, dataset.images)
    run = load_run(model)
    dataset = load_classes(data, split, run.classes, image_size=run.image_size)
    return dataset, predict(run.net, run.preprocess, dataset.images, torch.device("cpu"))
