"""How good a classifier is: accuracy, per-class accuracy, confusion matrix, calibration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import nn

from model.batches import images_at_once
from model.images import Pixels

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Report:
    """What `evaluate` found.

    Attributes:
        accuracy: share of images whose first label is right.
        class_accuracy: the same for each class (None for a class without images).
        confusion: (K, K) counts, row = true class, column = predicted class.
        calibration_error: expected calibration error over 15 equal bins (Guo et al. 2017).
    """

    images: int
    accuracy: float
    class_accuracy: dict[str, float | None]
    confusion: list[list[int]]
    calibration_error: float


@torch.no_grad()
def predict(
    net: nn.Module, preprocess: nn.Module, images: Pixels, device: torch.device, batch_size: int | None = None
) -> Logits:
    """Logits (N, K) float32 of uint8 images (N, H, W, 3), by default in batches that memory is enough for."""
    net.eval()
    batches = [torch.from_numpy(batch) for batch in _batches(images, batch_size)]
    return torch.cat([net(preprocess(batch.to(device))).float().cpu() for batch in batches]).numpy()


def predict_onnx(model: Path | bytes, images: Pixels, batch_size: int | None = None) -> Logits:
    """The same from an exported file (or its content), through ONNX Runtime on the CPU."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: batch})[0] for batch in _batches(images, batch_size)])


def _batches(images: Pixels, batch_size: int | None) -> list[Pixels]:
    size = batch_size or images_at_once(*images.shape[1:3])
    return [images[at : at + size] for at in range(0, len(images), size)]


def accuracy(logits: Logits, labels: Labels) -> float:
    return float((logits.argmax(1) == labels).mean())


def report(logits: Logits, labels: Labels, classes: tuple[str, ...]) -> Report:
    """Compare logits (N, K) with true labels (N,)."""
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (labels, logits.argmax(1)), 1)
    return Report(
        images=len(labels),
        accuracy=accuracy(logits, labels),
        class_accuracy={
            name: float(row[i] / row.sum()) if row.any() else None
            for i, (name, row) in enumerate(zip(classes, confusion, strict=True))
        },
        confusion=confusion.tolist(),
        calibration_error=calibration(logits, labels).error,
    )


def probabilities(logits: Logits) -> npt.NDArray[np.float32]:
    """The softmax (N, K) of logits (N, K)."""
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    shares: npt.NDArray[np.float32] = shifted / shifted.sum(1, keepdims=True)
    return shares


@dataclass(frozen=True)
class Calibration:
    """Images by the probability of their predicted class, in bins of equal width from 0 to 1.

    Attributes:
        images: (B,) how many each bin holds.
        confidence: (B,) the mean of that probability; 0 for a bin without images.
        accuracy: (B,) the share that is right; likewise.
    """

    images: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error: the bins' mean gap between confidence and accuracy, weighted by their images."""
        return float((self.images * np.abs(self.accuracy - self.confidence)).sum() / self.images.sum())


def calibration(logits: Logits, labels: Labels, bins: int = 15) -> Calibration:
    """Compare how sure logits (N, K) are with how often they fit the true labels (N,)."""
    confidence = probabilities(logits).max(1)
    bin_of = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    images = np.bincount(bin_of, minlength=bins)
    sums = [np.bincount(bin_of, weights, bins) for weights in (confidence, logits.argmax(1) == labels)]
    of_bins = [total / np.maximum(images, 1) for total in sums]
    return Calibration(images, *of_bins)


def table(found: Report) -> str:
    """A report as lines of text; the confusion matrix for up to 20 classes, above that the most frequent confusions."""
    names = list(found.class_accuracy)
    width = max(len(name) for name in names)
    digits = max(5, len(str(found.images)))
    lines = [
        f"accuracy           {found.accuracy:.4f}  ({found.images} images)",
        f"calibration error  {found.calibration_error:.4f}",
        "",
    ]
    small = len(names) <= 20
    header = "".join(f" {index:>{digits}}" for index in range(len(names))) if small else ""
    lines.append(
        f"{'class':<{width + 5}} {'images':>{digits + 1}} accuracy" + (f"  predicted as{header}" if small else "")
    )
    for index, (name, row) in enumerate(zip(names, found.confusion, strict=True)):
        share = found.class_accuracy[name]
        line = f"{index:>4} {name:<{width}} {sum(row):>{digits + 1}} {'-' if share is None else f'{share:.4f}':>8}"
        if small:
            line += " " * len("  predicted as") + "".join(f" {count:>{digits}}" for count in row)
        lines.append(line)
    if not small:
        wrong = [
            (count, i, j) for i, row in enumerate(found.confusion) for j, count in enumerate(row) if i != j and count
        ]
        lines += ["", "most frequent confusions"]
        lines += [
            f"{count:>{digits}}  {names[i]} taken for {names[j]}" for count, i, j in sorted(wrong, reverse=True)[:10]
        ]
    return "\n".join(lines)
