from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from model.data import Dataset
from model.pictures.activations import MOST_LAYERS, MOST_MAPS, activation_maps, draw_activations
from model.pictures.figure import PictureError
from model.pictures.weights import first_layer
from model.run import Run


@pytest.fixture
def file(shapes: Dataset, tmp_path: Path) -> Path:
    Image.fromarray(shapes.images[0]).save(tmp_path / "disc.png")
    return tmp_path / "disc.png"


def test_the_maps_are_the_layers_outputs(run_of: Callable[[str], Run], shapes: Dataset) -> None:
    run = run_of("lenet")
    maps, prediction = activation_maps(run, shapes.images[0])
    assert [(layer.name, of_layer.shape) for layer, of_layer in maps] == [
        ("0", (6, 12, 12)),
        ("1", (6, 12, 12)),
        ("2", (6, 6, 6)),
        ("3", (16, 2, 2)),
        ("4", (16, 2, 2)),
        ("5", (16, 5, 5)),
    ]
    with torch.no_grad():
        pixels = run.preprocess(torch.tensor(shapes.images[:1]))
        first = first_layer(run.net)(pixels)[0].numpy()
        shares = run.net(pixels).softmax(1)[0]
    # A single scale for all maps of a layer: their order is kept, also between maps.
    shown = maps[0][1]
    assert (shown.min(), shown.max()) == (0, 1)
    inside = (shown > 0) & (shown < 1)
    assert inside.mean() > 0.95
    assert np.polyfit(first[inside], shown[inside], 1, full=True)[1] == pytest.approx(0, abs=1e-6)
    # And a layer that works in place does not change what the one before it gave.
    assert (first < 0).any()
    assert (maps[1][1] == 0).mean() >= (first < 0).mean()
    assert prediction == f"{run.classes[int(shares.argmax())]}, with probability {shares.max():.2f}"


def test_some_maps_of_every_layer(run_of: Callable[[str], Run], file: Path, shapes: Dataset, figure: Figure) -> None:
    draw_activations(figure, run_of("lenet"), file)
    (axes,) = figure.axes
    assert len(axes.images) == 1 + 3 * 6 + 3 * min(16, MOST_MAPS)
    assert np.array_equal(np.asarray(axes.images[0].get_array()), shapes.images[0])
    names = [text.get_text() for text in axes.texts]
    assert names[:2] == ["image", "0: conv 5x5, stride 1\n6x12x12"]
    assert len(names) == 7


def test_of_a_deep_network_some_layers(run_of: Callable[[str], Run], file: Path, figure: Figure) -> None:
    draw_activations(figure, run_of("fastcnn"), file)
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.texts]
    assert len(names) == len(set(names)) == 1 + MOST_LAYERS


def test_all_maps_of_one_layer(run_of: Callable[[str], Run], file: Path, figure: Figure) -> None:
    draw_activations(figure, run_of("lenet"), file, "3")
    (axes,) = figure.axes
    assert len(axes.images) == 1 + 16
    assert [text.get_text() for text in axes.texts if text.get_text()] == ["image", "3: conv 5x5, stride 1\n16x2x2"]


@pytest.mark.parametrize("net", ["colour_histogram", "hog", "bovw", "features"])
def test_of_features(net: str, run_of: Callable[[str], Run], file: Path, shapes: Dataset, figure: Figure) -> None:
    run = run_of(net)
    draw_activations(figure, run, file)
    for layer, maps in activation_maps(run, shapes.images[0])[0]:
        assert maps.shape == layer.output
        assert np.isfinite(maps).all()


def test_a_layer_that_runs_twice(run_of: Callable[[str], Run], file: Path, figure: Figure) -> None:
    draw_activations(figure, run_of("bovw"), file, "features.0.patch_mean")
    (axes,) = figure.axes
    assert len(axes.images) == 1 + 1


def test_refusals(run_of: Callable[[str], Run], file: Path, figure: Figure) -> None:
    with pytest.raises(PictureError, match="no layer '9' with maps: must be one of 0, 1, 2, 3, 4, 5"):
        draw_activations(figure, run_of("lenet"), file, "9")
    with pytest.raises(PictureError, match="linear has no layer with maps"):
        draw_activations(figure, run_of("linear"), file)
    with pytest.raises(PictureError, match=r"nowhere\.png: no such image file"):
        draw_activations(figure, run_of("lenet"), file.with_name("nowhere.png"))
    broken = file.with_name("broken.png")
    broken.write_bytes(file.read_bytes()[:100])
    with pytest.raises(PictureError, match=r"broken\.png: cannot be read as an image"):
        draw_activations(figure, run_of("lenet"), broken)
