"""The images that a classifier is wrong about, the surest mistakes first."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from model.data import Dataset
from model.evaluate import Logits, probabilities
from model.pictures.figure import PictureError
from model.pictures.tiles import draw_tiles, in_rows, shortened

COLUMNS, ROWS = 8, 4


def draw_mistakes(figure: Figure, dataset: Dataset, logits: Logits) -> None:
    """Draw images with the predicted label, its probability, and the true label.

    Raises:
        PictureError: there is no mistake.
    """
    found = probabilities(logits)
    predicted, confidence = found.argmax(1), found.max(1)
    wrong = np.flatnonzero(predicted != dataset.labels)
    if not len(wrong):
        raise PictureError(f"all {len(dataset)} images are classified right: there is no mistake to show")
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][: COLUMNS * ROWS]
    captions = [
        f"{shortened(dataset.classes[predicted[i]])} {confidence[i]:.2f}\n"
        f"is {shortened(dataset.classes[dataset.labels[i]])}"
        for i in shown
    ]
    which = f"the {len(shown)} surest of {len(wrong):,}" if len(wrong) > len(shown) else f"all {len(wrong)}"
    title = f"Mistakes on {len(dataset):,} images, {which}: predicted label, its probability, and the true label"
    rows = in_rows([*dataset.images[shown]], COLUMNS)
    draw_tiles(figure, rows, side_inches=1.12, captions=in_rows(captions, COLUMNS), title=title)
