from __future__ import annotations

import pytest
import torch

from model.nets import NETS, FastCNN, Preprocess, build


@pytest.mark.parametrize(("name", "parameters"), [("fastcnn", 1_972_792), ("lenet", 62_006)])
def test_parameter_counts(name: str, parameters: int) -> None:
    assert sum(parameter.numel() for parameter in build(name, 10).parameters()) == parameters


@pytest.mark.parametrize("name", sorted(NETS))
@pytest.mark.parametrize("size", [10, 32, 45])
def test_any_image_size_gives_logits(name: str, size: int) -> None:
    logits = build(name, 7).eval()(torch.zeros(2, 3, size, size))
    assert logits.shape == (2, 7)


def test_preprocess_normalises_each_channel() -> None:
    pixels = torch.tensor([[[[0, 128, 255]]]], dtype=torch.uint8)
    normalised = Preprocess([0.0, 0.5, 1.0], [0.5, 0.25, 2.0])(pixels)
    assert normalised.shape == (1, 3, 1, 1)
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(normalised.flatten(), torch.tensor([0.0, (128 / 255 - 0.5) / 0.25, 0.0]))


def test_prepare_whitens_the_patches() -> None:
    images = torch.randn(50, 3, 12, 12, generator=torch.Generator().manual_seed(0)).cumsum(3)
    net = FastCNN(2)
    net.prepare(images)
    torch.nn.init.zeros_(net.whiten.bias)  # type: ignore[arg-type]
    with torch.no_grad():
        responses = net.whiten(images)[:, :12].permute(1, 0, 2, 3).flatten(1)
    torch.testing.assert_close(responses @ responses.T / responses.size(1), torch.eye(12), rtol=0, atol=0.02)
    assert not net.whiten.weight.requires_grad


def test_an_unknown_network_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        build("resnet", 2)
