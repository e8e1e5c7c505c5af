from __future__ import annotations

import numpy as np
import pytest
import torch

from model.nets.arithmetic import NetError
from model.nets.colour_histogram import ColourHistogram


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_numpys_histogram(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, channels, 12, 17))
    histogram = ColourHistogram((channels, 12, 17))
    found = histogram(torch.from_numpy(images).float())
    assert found.shape == (3, histogram.length) == (3, 8**channels)
    for image, each in zip(images, found, strict=True):
        colours = image.reshape(channels, -1).T
        counts, _ = np.histogramdd(colours, bins=8, range=[(0, 256)] * channels)
        np.testing.assert_allclose(each, np.sqrt(counts.ravel() / (12 * 17)), rtol=1e-6)


def test_where_a_colour_is_makes_no_difference() -> None:
    image = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float()
    histogram = ColourHistogram((3, 8, 8))
    assert torch.equal(histogram(image), histogram(image.flip(2, 3)))
    assert not torch.equal(histogram(image), histogram(image.flip(1)))


def test_more_channels_than_colours_can_be_told_apart_of_are_refused() -> None:
    with pytest.raises(NetError, match=r"40 channels are too many .* 8\^40 colours then: 6 or fewer would fit"):
        ColourHistogram((40, 32, 32))
