"""The templates of a network whose first layer sees all pixels: one a class (linear) or one a unit (two-layer)."""

from __future__ import annotations

from math import prod

from matplotlib.figure import Figure
from torch import nn

from model.pictures.figure import PictureError
from model.pictures.tiles import columns_for, draw_tiles, in_rows, shortened
from model.pictures.weights import first_layer, weight_images
from model.run import Run


def draw_templates(figure: Figure, run: Run) -> None:
    """Draw each row of W as an image.

    Raises:
        PictureError: the first layer does not see the pixels, or only some at a time.
    """
    name, shape = run.recipe.net, (3, run.image_size, run.image_size)
    layer = first_layer(run.net)
    if isinstance(layer, nn.Conv2d) and layer.weight.size(1) == 3:
        raise PictureError(f"{run.folder}: {name} begins with a convolution: it has filters, and no templates")
    if not isinstance(layer, nn.Linear) or layer.in_features != prod(shape):
        raise PictureError(f"{run.folder}: {name} sees features of the image, not its pixels: it has no templates")
    templates = [*weight_images(run, layer.weight.view(-1, *shape))]
    if _first_layer_is_last(run):
        columns = columns_for(len(templates), wide=2.5)
        captions = in_rows([shortened(label) for label in run.classes], columns)
        title = f"{name}: the template of each class (grey: a pixel that counts for nothing)"
        draw_tiles(figure, in_rows(templates, columns), side_inches=1.28, captions=captions, title=title)
    else:
        rows = in_rows(templates, columns_for(len(templates)))
        draw_tiles(figure, rows, side_inches=0.64, title=f"{name}: the templates of its {len(templates)} hidden units")


def _first_layer_is_last(run: Run) -> bool:
    return sum(1 for module in run.net.modules() if isinstance(module, nn.Linear)) == 1
