from __future__ import annotations

import re

import pytest
import torch

from model.nets import NETS, build, check_name
from model.nets.arithmetic import InputShape, NetError

PARAMETERS: dict[tuple[str, int, InputShape], int] = {
    # Torchvision's documentation of the weights' enumerations, "num_params".
    ("alexnet", 1000, (3, 224, 224)): 61_100_840,
    ("vgg16", 1000, (3, 224, 224)): 138_357_544,
    ("googlenet", 1000, (3, 224, 224)): 6_624_904,
    ("resnet18", 1000, (3, 224, 224)): 11_689_512,
    ("resnet50", 1000, (3, 224, 224)): 25_557_032,
    # github.com/kuangliu/pytorch-cifar: the first layer that the paper has for CIFAR-10 with the blocks for ImageNet.
    ("resnet18", 10, (3, 32, 32)): 11_173_962,
    ("resnet50", 10, (3, 32, 32)): 23_520_842,
    # CS231n: W is 10x3072, b has 10.
    ("linear", 10, (3, 32, 32)): 30_730,
    # CS231n: W1 is 100x3072, W2 is 10x100; a bias for each row.
    ("two_layer", 10, (3, 32, 32)): 100 * 3072 + 100 + 10 * 100 + 10,
    # 512 colours, 10 scores of each.
    ("colour_histogram", 10, (3, 32, 32)): 512 * 10 + 10,
    # 4x4 cells of 9 orientations; fixed are two differences for each channel and 9 directions to compare with.
    ("hog", 10, (3, 32, 32)): 4 * 4 * 9 * 10 + 10 + 2 * 3 * 3 + 9 * 2,
    # CS231n: a 320x240 image gives 40x30x9 = 10,800 numbers.
    ("hog", 10, (3, 240, 320)): 10_800 * 10 + 10 + 2 * 3 * 3 + 9 * 2,
    # 400 words in each quarter of the image; fixed are their 6x6 filters.
    ("bovw", 10, (3, 32, 32)): 400 * 4 * 10 + 10 + 400 * 108,
    ("features", 10, (3, 32, 32)): (512 + 144 + 1600) * 10 + 10 + 36 + 400 * 108,
    # ConvNetJS's CIFAR-10 demo: F*F*C*K + K, by layer.
    ("convnetjs", 10, (3, 32, 32)): (75 * 16 + 16) + (400 * 20 + 20) + (500 * 20 + 20) + (320 * 10 + 10),
    # CS231n: F*F*C*K + K of 5x5 filters, 24 planes each, and 4x4x24 numbers to 10 scores.
    ("neocognitron", 10, (3, 32, 32)): (75 * 24 + 24) + 2 * (600 * 24 + 24) + (384 * 10 + 10),
    # LeNet-5 with every first feature map in every second one, and colour.
    ("lenet", 10, (3, 32, 32)): 62_006,
    # AlexNet's layers with 5x5 first and 1,024 hidden units.
    ("alexnet_cifar", 10, (3, 32, 32)): 7_706_442,
    # What stands in the bundled model's card.
    ("fastcnn", 10, (3, 32, 32)): 1_972_792,
    ("conv:N=2,M=3,K=1,filters=32-64-128,F=3,S=1,P=1,pool=max2", 10, (3, 32, 32)): (
        (27 * 32 + 32) + (288 * 32 + 32) + (288 * 64 + 64) + (576 * 64 + 64) + (576 * 128 + 128) + (1152 * 128 + 128)
        # The three poolings leave 4x4 of 32x32.
        + (2048 * 128 + 128) + (128 * 10 + 10)
    ),
}  # fmt: skip

SMALLEST = {"alexnet": 63, "vgg16": 32, "lenet": 14, "fastcnn": 9, "neocognitron": 8, "convnetjs": 8} | {
    "alexnet_cifar": 8,
    "googlenet": 2,
    "hog": 8,
    "bovw": 6,
    "features": 8,
}

AT_ZERO = ("linear", "colour_histogram", "hog", "bovw", "features")
"""Those whose scores begin at zero."""


@pytest.mark.parametrize("built", PARAMETERS, ids=lambda built: f"{built[0]} {built[2][1]}")
def test_parameters_are_the_published_ones(built: tuple[str, int, InputShape]) -> None:
    name, num_classes, input_shape = built
    with torch.device("meta"):
        net = build(name, num_classes, input_shape)
        logits = net.eval()(torch.zeros(2, *input_shape))
    assert sum(parameter.numel() for parameter in net.parameters()) == PARAMETERS[built]
    assert logits.shape == (2, num_classes)


def test_every_network_is_in_the_table() -> None:
    assert set(NETS) == {name for name, *_ in PARAMETERS if not name.startswith("conv:")}


@pytest.mark.parametrize("name", sorted(NETS))
@pytest.mark.parametrize("size", ["smallest", 32, 45, 100])
def test_any_image_size_that_is_not_too_small_gives_logits(name: str, size: int | str) -> None:
    smallest = SMALLEST.get(name, 1)
    side = smallest if isinstance(size, str) else max(size, smallest)
    with torch.device("meta"):
        assert build(name, 7, (3, side, side)).eval()(torch.zeros(2, 3, side, side)).shape == (2, 7)
        assert build(name, 7, (1, side, side + 3)).eval()(torch.zeros(2, 1, side, side + 3)).shape == (2, 7)


@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_an_image_that_is_too_small_is_refused_with_the_arithmetic(name: str) -> None:
    size = SMALLEST[name] - 1
    expected = rf"{name}: an input of 3x{size}x100 is too small: .*= (0|0\.\d\d), .*: 3x{size + 1}x{size + 1} or larger"
    with pytest.raises(NetError, match=expected):
        build(name, 7, (3, size, 100))


def test_the_one_for_small_images_is_named() -> None:
    with pytest.raises(NetError, match=r"\(1 - 3 \+ 2\*0\)/2 \+ 1 = 0, .*alexnet_cifar is for small images"):
        build("alexnet", 10, (3, 32, 32))


@pytest.mark.parametrize("name", sorted(set(NETS) - set(AT_ZERO)))
def test_the_signal_survives_the_first_weights(name: str) -> None:
    """Logits of a deep network's first weights, neither all alike nor out of reach."""
    torch.manual_seed(0)
    size = SMALLEST["alexnet"] if name == "alexnet" else 32
    net = build(name, 10, (3, size, size))
    with torch.no_grad():
        spread = net.train()(torch.randn(8, 3, size, size)).std(0).mean()
    assert 1e-3 < spread < 20


@pytest.mark.parametrize("name", AT_ZERO)
def test_a_linear_classifier_begins_with_equal_scores(name: str) -> None:
    assert not build(name, 10, (3, 32, 32))(torch.randn(2, 3, 32, 32)).any()


def test_an_unknown_network_is_refused_with_those_there_are() -> None:
    for refuse in (check_name, lambda name: build(name, 2, (3, 32, 32))):
        with pytest.raises(NetError, match=re.escape("no network 'resnet': must be one of linear, two_layer, colour")):
            refuse("resnet")
    assert check_name("resnet18") == "resnet18"


def test_lenet_has_the_papers_maps() -> None:
    """LeCun et al. 1998, figure 2: C1, S2, C3, S4."""
    outputs, images = [], torch.zeros(1, 3, 32, 32)
    for layer in build("lenet", 10, (3, 32, 32)).children():
        images = layer(images)
        outputs.append(tuple(images.shape[1:]))
    assert [outputs[index] for index in (0, 2, 3, 5)] == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5)]
