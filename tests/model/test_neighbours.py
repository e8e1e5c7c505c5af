from __future__ import annotations

import numpy as np
import pytest
import torch

from model.neighbours import neighbours, same_label, table


def test_shares_are_counted_among_the_nearest_others() -> None:
    """On a line: a a b b, at 0, 1, 3 and 10."""
    vectors, labels = torch.tensor([[0.0], [1.0], [3.0], [10.0]]), torch.tensor([0, 0, 1, 1])
    # The nearest of each: 1, 0, 1 and 2, counting from 0; right but for the third.
    assert same_label(vectors, labels) == {1: 3 / 4}


@pytest.mark.parametrize("batch_size", [1, 7, 500])
def test_shares_are_those_of_every_pair(batch_size: int) -> None:
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(60, 5)).astype(np.float32), rng.integers(0, 3, 60)
    expected = {}
    for rank in (1, 5, 10):
        same = []
        for i in range(60):
            others = sorted(
                (j for j in range(60) if j != i), key=lambda j: float(((vectors[i] - vectors[j]) ** 2).sum())
            )
            same += [labels[j] == labels[i] for j in others[:rank]]
        expected[rank] = np.mean(same)
    found = same_label(torch.from_numpy(vectors), torch.from_numpy(labels), batch_size)
    assert found == pytest.approx(expected)


def test_features_are_compared_by_angle_and_pixels_by_distance() -> None:
    directions = np.array([[1, 0], [10, 0.1], [0, 1], [0.1, 10]], np.float32)
    images = np.array([0, 200, 10, 210], np.uint8).reshape(4, 1, 1, 1).repeat(3, 3)
    found = neighbours(directions, images, np.array([0, 0, 1, 1]))
    assert (found.images, found.features, found.pixels) == (4, {1: 1.0}, {1: 0.0})


def test_one_image_has_no_neighbours() -> None:
    assert same_label(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)) == {}


def test_the_table() -> None:
    rng = np.random.default_rng(0)
    found = neighbours(
        np.eye(12, dtype=np.float32), rng.integers(0, 256, (12, 2, 2, 3), np.uint8), np.zeros(12, np.int64)
    )
    assert table(found).splitlines() == [
        "neighbours with the same label, of 12 images",
        "nearest   features   pixels",
        "      1     1.0000   1.0000",
        "      5     1.0000   1.0000",
        "     10     1.0000   1.0000",
    ]
