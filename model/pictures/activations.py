"""What the layers of a network make of one image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch import Tensor, fx

from model.evaluate import probabilities
from model.images import Pixels, read_pixels
from model.pictures.figure import PictureError
from model.pictures.tiles import Image, columns_for, draw_tiles, in_rows
from model.run import Run
from model.summary import NO_LAYERS, Layer, summarise_net

MOST_LAYERS, MOST_MAPS = 12, 12
"""That are drawn when no layer is chosen."""

BRIGHTEST_PERCENTILE = 99.5


def draw_activations(figure: Figure, run: Run, file: Path, layer: str | None = None) -> None:
    """Draw the first maps of the layers, or all the maps of one layer. A layer's maps share one scale.

    Args:
        layer: its name, as in `summary`.

    Raises:
        PictureError: the image cannot be read, the network has no maps, or there is no such layer.
    """
    try:
        pixels = read_pixels(str(file), run.image_size)
    except FileNotFoundError as error:
        raise PictureError(f"{file}: no such image file") from error
    # A damaged file may make a decoder raise anything.
    except Exception as error:
        raise PictureError(f"{file}: cannot be read as an image: {error}") from error
    layers, prediction = activation_maps(run, pixels)
    if not layers:
        raise PictureError(f"{run.folder}: {run.recipe.net} has no layer with maps: only units that see all pixels")
    title = f"{run.recipe.net} on {file.name}: {prediction}"
    if layer is None:
        shown = [layers[i] for i in sorted({round(i) for i in np.linspace(0, len(layers) - 1, MOST_LAYERS)})]
        rows: list[list[Image]] = [[pixels], *([*maps[:MOST_MAPS]] for _, maps in shown)]
        names = ["image", *(_name(each) for each, _ in shown)]
        draw_tiles(figure, rows, side_inches=0.64, row_names=names, title=title)
        return
    chosen = [(each, maps) for each, maps in layers if each.name == layer]
    if not chosen:
        raise PictureError(
            f"{run.recipe.net} has no layer {layer!r} with maps: must be one of {', '.join(e.name for e, _ in layers)}"
        )
    # One that runs twice is drawn as it runs first.
    of, maps = chosen[0]
    rows = [[pixels], *([*row] for row in in_rows([*maps], columns_for(len(maps), wide=1.6)))]
    names = ["image", _name(of), *[""] * (len(rows) - 2)]
    draw_tiles(figure, rows, side_inches=0.8, row_names=names, title=title)


def activation_maps(run: Run, pixels: Pixels) -> tuple[list[tuple[Layer, npt.NDArray[np.float32]]], str]:
    """Run one image through the network.

    Args:
        pixels: (H, W, 3) uint8.

    Returns:
        each layer whose output has a height and a width, with its maps (C, H, W), 0 to 1; and the prediction in words.
    """
    watch = _Watch(fx.symbolic_trace(run.net))
    with torch.no_grad():
        logits = watch.run(run.preprocess(torch.tensor(pixels)[None])).numpy()
    layers = summarise_net(run.net, (3, run.image_size, run.image_size)).layers
    maps = [
        (layer, _scaled(output[0].float().numpy()))
        for layer, output in zip(layers, watch.outputs, strict=True)
        if len(layer.output) == 3 and layer.output[1:] != (1, 1)
    ]
    (shares,) = probabilities(logits)
    return maps, f"{run.classes[shares.argmax()]}, with probability {shares.max():.2f}"


class _Watch(fx.Interpreter):
    """Runs a traced network and keeps the output of every layer that `summary` tells of."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.outputs: list[Tensor] = []

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op not in NO_LAYERS and isinstance(result, Tensor):
            # The next layer may work in place.
            self.outputs.append(result.clone())
        return result


def _scaled(maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """All maps of a layer from its least activation, 0, to its greatest, 1; few outliers do not count."""
    least, greatest = np.percentile(maps, (100 - BRIGHTEST_PERCENTILE, BRIGHTEST_PERCENTILE))
    scaled: npt.NDArray[np.float32] = ((maps - least) / max(greatest - least, np.finfo(np.float32).tiny)).clip(0, 1)
    return scaled


def _name(layer: Layer) -> str:
    return f"{layer.name}: {layer.kind}\n{'x'.join(map(str, layer.output))}"
