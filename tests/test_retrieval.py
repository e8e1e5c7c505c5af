"""A small network, trained here, exported with its features: what is served of them finds images of the same class."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from model.data import synthetic
from model.evaluate import predict_onnx
from model.export import export
from model.images import Pixels
from model.neighbours import neighbours
from model.recipe import recipe_for
from model.train import train
from tests.service.launch import running


def png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_neighbours_by_served_features_agree_with_labels_far_beyond_pixels(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    recipe = replace(recipe_for("convnetjs"), epochs=8, batch_size=20, lr=1.0)
    shapes, cpu = synthetic("train", image_size=16, count=480), torch.device("cpu")
    run = train(shapes, None, recipe, tmp_path / "run", device=cpu, origin={"command": "", "data": "synthetic"})
    repository = tmp_path / "repository"
    for name, features in (("shapes", False), ("shapes_features", True)):
        export(run, repository, name, command="", features=features)
    test = synthetic("test", image_size=16, count=150)
    with running(repository, max_images_per_request=50) as service:
        results = []
        for begin in range(0, 150, 50):
            files = [("images", ("image.png", png(pixels))) for pixels in test.images[begin : begin + 50]]
            results += httpx.post(f"{service.http}/v1/embed", files=files, timeout=60).json()["results"]
        classified = httpx.post(
            f"{service.http}/v1/classify", files=[("i", ("i.png", png(test.images[0])))], timeout=60
        )
    embedded = np.array([result["embedding"] for result in results], np.float32)
    exported = predict_onnx(repository / "shapes_features" / "1" / "model.onnx", test.images)
    assert embedded == pytest.approx(exported, rel=1e-4, abs=1e-4 * float(np.abs(exported).max()))
    assert {result["model"] for result in results} == {"shapes_features"}
    assert classified.json()["results"][0]["model"] == "shapes"

    found = neighbours(embedded, test.images, test.labels)
    assert found.features[10] > 0.75
    assert found.pixels[10] < 0.6
