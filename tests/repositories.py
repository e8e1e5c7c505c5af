"""Model repositories made on the spot: a graph whose answer anyone can predict, no torch needed.

The classifier says which of red, green and blue an image has most of: logits are the channels' means,
scaled to 0 … 10.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

LABELS = ("red", "green", "blue")
SIZE = 8

CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch_size}
input {{ name: "pixels" data_type: TYPE_UINT8 format: FORMAT_NHWC dims: [ {size}, {size}, 3 ] }}
output {{ name: "{kind}s" data_type: TYPE_FP32 dims: [ 3 ] {meaning}
{extra}
"""
LABELLED = 'label_filename: "labels.txt" }'
FEATURES = '} parameters { key: "features.output" value { string_value: "features" } }'


def write_model(
    repository: Path,
    name: str = "colours",
    *,
    versions: tuple[int, ...] = (1,),
    size: int = SIZE,
    max_batch_size: int = 8,
    extra: str = "dynamic_batching { }",
    golden: bool = True,
    slow_rounds: int = 0,
    features: bool = False,
) -> Path:
    """Write a model and return its folder.

    Args:
        slow_rounds: makes each image cost that many 256x256 products.
        features: whether what would be logits is given as features.
    """
    folder = repository / name
    folder.mkdir(parents=True)
    kind, meaning = ("feature", FEATURES) if features else ("logit", LABELLED)
    text = CONFIG.format(name=name, size=size, max_batch_size=max_batch_size, kind=kind, meaning=meaning, extra=extra)
    (folder / "config.pbtxt").write_text(text)
    if not features:
        (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    for version in versions:
        (folder / str(version)).mkdir()
        onnx.save(graph(size, slow_rounds, output=f"{kind}s"), folder / str(version) / "model.onnx")
        if golden:
            write_golden(folder / str(version), size, kind)
    return folder


def graph(size: int, slow_rounds: int = 0, scale: float = 10 / 255, output: str = "logits") -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("Mul", ["means", "scale"], ["scaled"]),
    ]
    initializers = [
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("scale", TensorProto.FLOAT, [], [scale]),
    ]
    if slow_rounds:
        # A product with the identity, over and over, that adds nothing but time.
        initializers += [
            helper.make_tensor(
                "identity", TensorProto.FLOAT, [256, 256], np.eye(256, dtype=np.float32).tobytes(), raw=True
            ),
            helper.make_tensor("spread", TensorProto.INT64, [4], [1, 1, 256, 256]),
            helper.make_tensor("unsqueeze", TensorProto.INT64, [2], [2, 3]),
            helper.make_tensor("last", TensorProto.INT64, [2], [2, 3]),
        ]
        nodes.append(helper.make_node("Unsqueeze", ["scaled", "unsqueeze"], ["wide0"]))
        nodes.append(helper.make_node("Tile", ["wide0", "spread"], ["round0"]))
        nodes += [helper.make_node("MatMul", [f"round{i}", "identity"], [f"round{i + 1}"]) for i in range(slow_rounds)]
        nodes.append(helper.make_node("ReduceMean", [f"round{slow_rounds}", "last"], [output], keepdims=0))
    else:
        nodes.append(helper.make_node("Identity", ["scaled"], [output]))
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", size, size, 3])
    logits = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", 3])
    model = helper.make_model(
        helper.make_graph(nodes, "colours", [pixels], [logits], initializers),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    onnx.checker.check_model(model)
    return model


def write_golden(version_folder: Path, size: int = SIZE, kind: str = "logit") -> None:
    """A mostly green photo, stored turned by 90 degrees, and what must come of it."""
    upright = np.zeros((40, 30, 3), np.uint8)
    upright[..., 1] = np.linspace(120, 250, 40)[:, None].astype(np.uint8)
    upright[:, :10, 2] = 200
    image = Image.fromarray(upright)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn to the left of how it is to be seen
    image.transpose(Image.Transpose.ROTATE_90).save(version_folder / "golden.jpg", exif=exif, quality=95)

    with Image.open(version_folder / "golden.jpg") as stored:
        turned = stored.convert("RGB").transpose(Image.Transpose.ROTATE_270)
    height = int(size * 40 / 30)
    resized = turned.resize((size, height), Image.Resampling.BILINEAR)
    top = round((height - size) / 2)
    pixels = np.asarray(resized.crop((0, top, size, top + size)))
    arrays = {
        "pixels": pixels,
        f"{kind}s": (pixels.mean((0, 1)) * 10 / 255).astype(np.float32),
        "pixel_tolerance": np.array(1),
        f"{kind}_tolerance": np.array(0.02),
    }
    np.savez(version_folder / "golden.npz", **arrays)


def picture(colour: str, *, size: tuple[int, int] = (20, 16), image_format: str = "JPEG") -> bytes:
    """An encoded image of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, image_format)
    return buffer.getvalue()
