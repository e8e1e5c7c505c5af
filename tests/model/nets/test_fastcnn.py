from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from model.nets.fastcnn import FastCNN


class ChannelsFirst(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.permute(0, 3, 1, 2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("at_once", [7, 500])
def test_prepare_whitens_the_patches(channels: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.nets.fastcnn.images_at_once", lambda *_: at_once)
    images = torch.randn(50, channels, 12, 12, generator=torch.Generator().manual_seed(0)).cumsum(3)
    net = FastCNN(2, (channels, 12, 12))
    net.prepare(images.permute(0, 2, 3, 1), ChannelsFirst())
    torch.nn.init.zeros_(net.whiten.bias)  # type: ignore[arg-type]
    numbers = 4 * channels
    with torch.no_grad():
        responses = net.whiten(images)[:, :numbers].permute(1, 0, 2, 3).flatten(1)
    torch.testing.assert_close(responses @ responses.T / responses.size(1), torch.eye(numbers), rtol=0, atol=0.02)
    assert not net.whiten.weight.requires_grad
