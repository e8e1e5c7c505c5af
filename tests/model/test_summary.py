from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pytest
import torch

from model.command_line import main
from model.nets import NETS, build
from model.nets.arithmetic import InputShape, NetError
from model.summary import Layer, read_shape, summarise, table

IMAGENET = (3, 224, 224)


def layer(text: str, input_shape: InputShape) -> Layer:
    (only,) = summarise([text], 10, input_shape).layers
    return only


@pytest.mark.parametrize(
    ("text", "input_shape", "output", "parameters"),
    [
        # CS231n's lecture on CNNs: one 3x3 filter on 7x7 at stride 1 and 2, with a border of one zero.
        ("conv2d:filters=1,F=3", (1, 7, 7), (1, 5, 5), 10),
        ("conv2d:filters=1,F=3,S=2", (1, 7, 7), (1, 3, 3), 10),
        ("conv2d:filters=1,F=3,P=1", (1, 7, 7), (1, 7, 7), 10),
        # Ten 5x5 filters on 32x32x3, stride 1, pad 2: 5*5*3 + 1 = 76 parameters each.
        ("conv2d:filters=10,F=5,S=1,P=2", (3, 32, 32), (10, 32, 32), 760),
        # Six of them without padding.
        ("conv2d:filters=6,F=5", (3, 32, 32), (6, 28, 28), 456),
        # 32 1x1 filters on 56x56x64, each a dot product of 64 numbers.
        ("conv2d:filters=32,F=1", (64, 56, 56), (32, 56, 56), 64 * 32 + 32),
        # AlexNet's first layer as the lecture has it: 96 filters of 11x11 at stride 4; then pooling 3x3 at stride 2.
        ("conv2d:filters=96,F=11,S=4", (3, 227, 227), (96, 55, 55), 34_944),
        ("maxpool:F=3,S=2", (96, 55, 55), (96, 27, 27), 0),
        # Pooling 2x2 at stride 2.
        ("maxpool:F=2,S=2", (64, 224, 224), (64, 112, 112), 0),
        ("maxpool:F=2", (1, 4, 4), (1, 2, 2), 0),
    ],
)  # fmt: skip
def test_the_lectures_layers(text: str, input_shape: InputShape, output: tuple[int, ...], parameters: int) -> None:
    found = layer(text, input_shape)
    assert (found.output, found.parameters, found.note) == (output, parameters, None)


def test_two_of_the_lectures_layers_one_after_another() -> None:
    """32 to 28 to 24."""
    found = summarise(["conv2d:filters=6,F=5", "relu", "conv2d:filters=10,F=5"], 10, (3, 32, 32))
    assert [layer.output for layer in found.layers] == [(6, 28, 28), (6, 28, 28), (10, 24, 24)]
    assert [layer.receptive_field for layer in found.layers] == [(5, 5), (5, 5), (9, 9)]


@pytest.mark.parametrize(("size", "channels", "filters"), [(1, 64, 32), (3, 3, 64), (5, 10, 7), (11, 3, 96)])
def test_parameters_and_cost_of_a_convolution(size: int, channels: int, filters: int) -> None:
    """F*F*C*K weights and K biases; a multiply-add of each weight at every position."""
    found = layer(f"conv2d:filters={filters},F={size}", (channels, 20, 30))
    positions = (20 - size + 1) * (30 - size + 1)
    assert found.parameters == size**2 * channels * filters + filters
    assert found.multiply_adds == size**2 * channels * filters * positions
    assert found.activation_bytes == 4 * filters * positions


def test_groups_divide_weights_and_cost() -> None:
    whole, grouped = (layer(f"conv2d:filters=8,F=3,G={groups}", (4, 9, 9)) for groups in (1, 4))
    assert grouped.multiply_adds * 4 == whole.multiply_adds
    assert (grouped.parameters - 8) * 4 == whole.parameters - 8
    assert grouped.output == whole.output
    assert grouped.kind == "conv 3x3, stride 1, groups 4"
    with pytest.raises(NetError, match="3 groups do not divide 4 input channels and 8 filters: G = 1 or 2 or 4 would"):
        layer("conv2d:filters=8,F=3,G=3", (4, 9, 9))


@pytest.mark.parametrize(
    ("text", "side", "output", "note"),
    [
        # The lecture's example that does not fit: 7x7 with 3x3 at stride 3.
        (
            "conv2d:filters=1,F=3,S=3",
            7,
            2,
            "(7 - 3 + 2*0)/3 + 1 = 2.33 is not whole: N = 6 or 9, P = 1, or S = 2 would fit; "
            "rounded down to 2, which leaves out the last 1 of 7 pixels",
        ),
        (
            "conv2d:filters=1,F=3,S=4,P=1,D=2",
            16,
            4,
            "(16 - 5 + 2*1)/4 + 1 = 4.25 is not whole: N = 15 or 19, or S = 1 would fit; "
            "rounded down to 4, which leaves out the last 1 of the padding and no pixel",
        ),
        (
            "conv2d:filters=1,F=2,S=5,P=1",
            8,
            2,
            "(8 - 2 + 2*1)/5 + 1 = 2.60 is not whole: N = 5 or 10, P = 2, or S = 4 would fit; "
            "rounded down to 2, which leaves out the last 2 of 8 pixels",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_what_is_left_out(text: str, side: int, output: int, note: str) -> None:
    found = layer(text, (1, side, side))
    assert found.output == (1, output, output)
    assert found.note == note


def test_height_and_width_have_notes_of_their_own() -> None:
    found = layer("maxpool:F=2", (1, 7, 9))
    assert found.note is not None
    assert [note.split(" = ")[0] for note in found.note.split("; (")] == ["(7 - 2 + 2*0)/2 + 1", "9 - 2 + 2*0)/2 + 1"]
    assert layer("maxpool:F=2", (1, 8, 10)).note is None


def test_pooling_that_rounds_up_says_so() -> None:
    notes = [layer.note for layer in summarise(["googlenet"], 1000, IMAGENET).layers if "pool" in layer.kind]
    assert notes[0] is not None
    assert notes[0].endswith("rounded up to 56, whose last window hangs over by 1")


@pytest.mark.parametrize(
    ("name", "multiply_adds", "receptive_field"),
    [
        # Multiply-adds as torchvision's documentation has them, in 10^9; receptive fields of Araujo et al. 2019,
        # "Computing Receptive Fields of Convolutional Neural Networks". ResNet-18's by hand: 11 behind its pooling,
        # then twice the stride before it for each 3x3: 11 + 4 * 8 + (8 + 3 * 16) + (16 + 3 * 32) + (32 + 3 * 64) = 435.
        ("alexnet", 0.71, 195),
        ("vgg16", 15.47, 212),
        ("googlenet", 1.50, None),
        ("resnet18", 1.81, 435),
        ("resnet50", 4.09, None),
    ],
)
def test_published_figures(name: str, multiply_adds: float, receptive_field: int | None) -> None:
    found = summarise([name], 1000, IMAGENET)
    assert round(found.multiply_adds / 1e9, 2) == multiply_adds
    if receptive_field:
        assert [layer.receptive_field for layer in found.layers if layer.receptive_field][-1] == (receptive_field,) * 2


def test_the_lectures_table_of_vgg() -> None:
    """Of CS231n's slide on VGG-16: memory in numbers, and parameters, which there lack the biases."""
    found = [layer for layer in summarise(["vgg16"], 1000, IMAGENET).layers if layer.kind not in ("ReLU", "dropout")]
    shown = [(layer.activation_bytes // 4, layer.parameters) for layer in found]
    assert shown[0] == (224 * 224 * 64, 3 * 3 * 3 * 64 + 64)
    assert shown[1] == (224 * 224 * 64, 3 * 3 * 64 * 64 + 64)
    assert shown[2] == (112 * 112 * 64, 0)
    assert shown[-3:] == [
        (4096, 7 * 7 * 512 * 4096 + 4096),
        (4096, 4096 * 4096 + 4096),
        (1000, 4096 * 1000 + 1000),
    ]


@pytest.mark.parametrize("name", [*NETS, "conv:N=2,M=2,K=1,filters=4-8,F=3,P=1,pool=max2"])
def test_the_sums_and_shapes_are_the_networks(name: str) -> None:
    side = 64 if name == "alexnet" else 32
    found = summarise([name], 7, (3, side, side))
    with torch.device("meta"):
        net = build(name, 7, (3, side, side))
    assert found.parameters == sum(p.numel() for p in net.parameters())
    assert found.layers[-1].output == (7,)
    assert found.multiply_adds == sum(layer.multiply_adds for layer in found.layers)
    assert found.activation_bytes == sum(layer.activation_bytes for layer in found.layers)


def test_a_table() -> None:
    assert table(summarise(["conv2d:filters=10,F=5,P=2", "maxpool:F=3", "fc:units=4"], 10, (3, 32, 31))) == "\n".join(
        [
            "layer  kind                       output    parameters  multiply-adds   bytes  sees  stride",
            "input                             3x32x31",
            "0      conv 5x5, stride 1, pad 2  10x32x31         760        744,000  39,680   5x5     1x1",
            "1      max pool 3x3, stride 3 *   10x10x10           0              0   4,000   7x7     3x3",
            "2      flatten                    1000               0              0       0   7x7",
            "3      linear                     4              4,004          4,000      16   all",
            "total                                            4,764        748,000  43,696",
            "",
            "* 1: (32 - 3 + 2*0)/3 + 1 = 10.67 is not whole: N = 30 or 33, or S = 1 would fit; "
            "rounded down to 10, which leaves out the last 2 of 32 pixels; "
            "(31 - 3 + 2*0)/3 + 1 = 10.33 is not whole: N = 30 or 33, P = 1, or S = 2 would fit; "
            "rounded down to 10, which leaves out the last 1 of 31 pixels",
        ]
    )


@pytest.mark.parametrize("layer", ["conv2d:filters=4,F=3,S=4", "maxpool:F=3", "maxpool:F=4", "avgpool:F=5"])
@pytest.mark.parametrize("size", range(5, 13))
def test_what_would_fit_is_taken_and_fits(layer: str, size: int) -> None:
    (found,) = summarise([layer], 10, (3, size, size)).layers
    for padding in re.findall(r"P = (\d+)", found.note or ""):
        (padded,) = summarise([f"{layer},P={padding}"], 10, (3, size, size)).layers
        assert padded.note is None


def test_a_histogram_costs_its_product_of_matrices_and_sees_all_from_there_on() -> None:
    found = summarise(["colour_histogram"], 10, (3, 32, 32))
    assert found.multiply_adds == 64 * 8 * 1024 + 512 * 10
    (product,) = [number for number, layer in enumerate(found.layers) if layer.name == "matmul"]
    assert {layer.receptive_field for layer in found.layers[:product]} == {(1, 1)}
    assert {layer.receptive_field for layer in found.layers[product:]} == {None}


def test_a_window_that_is_no_square() -> None:
    down, across = summarise(["hog"], 10, (3, 32, 32)).layers[:2]
    assert down.kind == "conv 3x1, stride 1, pad 1x0, groups 3"
    assert across.kind == "conv 1x3, stride 1, pad 0x1, groups 3"


def run(*arguments: str) -> int:
    return main(["summary", *arguments])


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("alexnet", "--input", "3x224x224", "--num-classes", "1000") == 0
    assert "61,100,840" in capsys.readouterr().out
    assert run("conv2d:filters=10,F=5,P=2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["input"], found["parameters"]) == ([3, 32, 32], 760)
    assert found["layers"] == [
        {
            "name": "0",
            "kind": "conv 5x5, stride 1, pad 2",
            "output": [10, 32, 32],
            "parameters": 760,
            "multiply_adds": 768_000,
            "activation_bytes": 40_960,
            "receptive_field": [5, 5],
            "stride": [1.0, 1.0],
            "note": None,
        }
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet"], "no network 'resnet'"),
        (["alexnet"], "alexnet: an input of 3x32x32 is too small"),
        (["lenet", "vgg16"], "lenet vgg16: one network at a time, or layers, one after another"),
        (["relu", "vgg16"], "no layer 'vgg16'"),
        (["conv:N=1,M=1,filters=8,F=3,S=3", "--input", "3x7x7"], "(7 - 3 + 2*0)/3 + 1 = 2.33 is not whole"),
    ],
)
def test_what_cannot_be_summarised_is_one_line(
    arguments: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("text", ["32x32", "3x32x32x32", "0x32x32", "3x32xtall", "3 x 32 x 32", "3x999999x1"])
def test_a_shape_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NetError, match="is no shape: must be channels x height x width, such as 3x32x32"):
        read_shape(text)
    with pytest.raises(SystemExit):
        run("lenet", "--input", text)
    assert "argument --input: " in capsys.readouterr().err
