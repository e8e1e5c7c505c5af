"""Learning from the answers of trained models instead of from labels alone: distillation (Hinton et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort
import torch
from torch import Tensor

from model.data import Dataset
from model.repository import read_signature
from model.run import RunError


class Teachers:
    """Exported models (of this package) that answer together, through ONNX Runtime on the CPU.

    Args:
        models: each `<repository>/<name>/<version>/model.onnx`.
        dataset: what is to be learned; the models must have its classes and its image size.

    Raises:
        RepositoryError: a file is not an export of ours.
        RunError: a model has other classes, or takes images of another size.
    """

    def __init__(self, models: Sequence[Path], dataset: Dataset) -> None:
        size = int(dataset.images.shape[1])
        for model in models:
            signature = read_signature(model)
            if signature.classes != dataset.classes:
                raise RunError(
                    f"teacher {model}: its classes are {', '.join(signature.classes)}; "
                    f"the data's are {', '.join(dataset.classes)}"
                )
            if signature.image_size != size:
                raise RunError(f"teacher {model}: takes images of {signature.image_size} pixels, not of {size}")
        options = ort.SessionOptions()
        # The step that follows wants the cores at once.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions = [ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]) for model in models]

    def probabilities(self, pixels: Tensor) -> Tensor:
        """The mean of their probabilities (N, K) float32, for uint8 pixels (N, H, W, 3) as the learner sees them."""
        feed = pixels.cpu().numpy()
        answers = [
            torch.from_numpy(session.run(None, {session.get_inputs()[0].name: feed})[0]).softmax(1)
            for session in self._sessions
        ]
        return torch.stack(answers).mean(0).to(pixels.device)
