from __future__ import annotations

import torch

from model.nets.preprocess import Preprocess


def test_preprocess_normalises_each_channel() -> None:
    pixels = torch.tensor([[[[0, 128, 255]]]], dtype=torch.uint8)
    normalised = Preprocess([0.0, 0.5, 1.0], [0.5, 0.25, 2.0])(pixels)
    assert normalised.shape == (1, 3, 1, 1)
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(normalised.flatten(), torch.tensor([0.0, (128 / 255 - 0.5) / 0.25, 0.0]))
