from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.nets.arithmetic import InputShape
from model.nets.colour_histogram import ColourHistogram
from model.nets.features import OnFeatures, bovw, colour_histogram, features, hog
from model.nets.hog import Hog
from model.nets.preprocess import Preprocess

SHAPE = (3, 16, 24)


PREPROCESS = Preprocess([0.0] * 3, [1 / 255] * 3)
"""Pixels as they are."""


def pixels(count: int = 20) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    dark_or_bright = torch.randint(100, 256, (count, 1, 1, 1), generator=draw)
    return (torch.rand(count, *SHAPE, generator=draw) * dark_or_bright).floor()


def prepare(net: OnFeatures) -> None:
    net.prepare(pixels().permute(0, 2, 3, 1).byte(), PREPROCESS)


@pytest.mark.parametrize("build", [colour_histogram, hog, bovw, features])
def test_the_linear_layer_gets_standardised_features(build: Callable[[int, InputShape], OnFeatures]) -> None:
    net = build(10, SHAPE)
    for _ in range(2):
        prepare(net)
    with torch.no_grad():
        found, given = net.measure(pixels()), net.describe(pixels())
    varies = found.std(0, correction=0) > 1e-4
    assert varies.float().mean() > 0.1
    torch.testing.assert_close(given.mean(0), torch.zeros(given.size(1)), rtol=0, atol=2e-3)
    torch.testing.assert_close(given[:, varies].std(0, correction=0), torch.ones(int(varies.sum())))


def test_a_feature_that_never_varies_stays_small() -> None:
    net = OnFeatures(10, ColourHistogram(SHAPE))
    prepare(net)
    # A colour that none of the images has.
    new = torch.full((1, *SHAPE), 255.0)
    assert not net.measure(pixels())[:, -1].any()
    with torch.no_grad():
        assert net.describe(new)[0, -1] == 1


def test_all_features_one_after_another() -> None:
    net = features(10, SHAPE)
    alone = [build(10, SHAPE).head.in_features for build in (colour_histogram, hog, bovw)]
    assert alone == [512, 2 * 3 * 9, 4 * 400]
    assert net.head.in_features == sum(alone)
    with torch.no_grad():
        found = net.measure(pixels(2))
        assert torch.equal(found[:, 512 : 512 + 54], Hog(SHAPE)(pixels(2)))


def test_what_was_learned_is_part_of_the_state() -> None:
    net, other = features(10, SHAPE), features(10, SHAPE)
    prepare(net)
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(other.describe(pixels()), net.describe(pixels()))


def test_images_are_measured_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, in_batches = features(10, SHAPE), features(10, SHAPE)
    torch.manual_seed(0)
    prepare(at_once)
    monkeypatch.setattr(sys.modules[OnFeatures.__module__], "images_at_once", lambda *_: 7)
    torch.manual_seed(0)
    prepare(in_batches)
    torch.testing.assert_close(in_batches.state_dict(), at_once.state_dict())
