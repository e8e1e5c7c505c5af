from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.data import Dataset, synthetic
from model.recipe import RECIPES
from model.run import Run
from model.train import train

CPU = torch.device("cpu")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shapes() -> Dataset:
    return synthetic("train", image_size=16, count=96)


@pytest.fixture(scope="session")
def fastcnn_run(shapes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    recipe = replace(RECIPES["fastcnn"], epochs=1, averaged_epochs=1, batch_size=9)
    origin = {"command": "python -m model train synthetic", "data": "synthetic"}
    return train(shapes, None, recipe, tmp_path_factory.mktemp("runs") / "fastcnn", device=CPU, origin=origin)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """An image folder of two classes, bright and dark, in odd and mixed sizes."""
    write_photos(tmp_path / "photos" / "train", {"bright": 180, "dark": 60}, 12)
    write_photos(tmp_path / "photos" / "test", {"bright": 180, "dark": 60}, 4)
    return tmp_path / "photos"


def write_photos(folder: Path, levels: dict[str, int], count: int) -> None:
    rng = np.random.default_rng(0)
    for name, level in levels.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(level - 40, level + 40, (17 + 2 * i, 33 - i, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.{'png' if i % 2 else 'jpg'}")


@pytest.fixture
def write_classes() -> Callable[[Path, dict[str, int], int], None]:
    return write_photos
