"""The filters of a network's first convolution."""

from __future__ import annotations

from matplotlib.figure import Figure
from torch import nn

from model.pictures.figure import PictureError
from model.pictures.tiles import columns_for, draw_tiles, in_rows
from model.pictures.weights import first_layer, weight_images
from model.run import Run


def draw_filters(figure: Figure, run: Run) -> None:
    """Draw each filter as an image.

    Raises:
        PictureError: the first layer is no convolution of the pixels.
    """
    layer = first_layer(run.net)
    if not isinstance(layer, nn.Conv2d) or layer.weight.size(1) != 3:
        raise PictureError(
            f"{run.folder}: {run.recipe.net} does not begin with a convolution of all channels: it has no filters"
        )
    filters = [*weight_images(run, layer.weight)]
    height, width = layer.kernel_size
    title = f"{run.recipe.net}: its {len(filters)} first filters, {height}x{width}"
    draw_tiles(figure, in_rows(filters, columns_for(len(filters), wide=2)), side_inches=0.64, title=title)
