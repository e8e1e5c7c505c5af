"""Several exported models as one: its logits are the mean of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import onnx
from onnx import compose, helper

from model.card import quoted, section
from model.data import Dataset
from model.evaluate import Report, predict_onnx, report
from model.golden import golden_arrays
from model.images import Pixels
from model.repository import Signature, next_version, publish, read_signature

PARITY_BOUND = 1e-4


class CombineError(Exception):
    """Models do not go together, or their committee is not the mean of them."""


@dataclass(frozen=True)
class Committee:
    """What `combine` wrote and measured.

    Attributes:
        folder: the version's folder.
        tested: accuracy and calibration on the test images; None without them.
    """

    folder: Path
    model_bytes: int
    tested: Report | None


def combine(
    members: Sequence[Path],
    repository: Path,
    name: str,
    *,
    command: str,
    test: Dataset | None = None,
    test_data: str | None = None,
) -> Committee:
    """Publish the mean of several models' logits as the next version of `<repository>/<name>`.

    Args:
        members: folders of versions, `<repository>/<name>/<version>`, of the same classes and image size.
        command: the command that asked for it, for the model card.
        test: images to measure it on.
        test_data: where they came from, for the model card.

    Raises:
        RepositoryError: a member is no model version, or the name is not safe or stands for another model.
        CombineError: they do not go together. Nothing is written then.
    """
    signatures = [read_signature(member / "model.onnx") for member in members]
    for member, signature in zip(members, signatures, strict=True):
        if signature != signatures[0]:
            raise CombineError(f"{member}: has other classes or another image size than {members[0]}")
    if signatures[0].features:
        raise CombineError(f"{members[0]}: gives features; what can be combined are classifiers")
    version = next_version(repository, name, signatures[0])
    photo, pixels = _golden_photo(members[0])

    proto = mean_of([onnx.load(member / "model.onnx") for member in members], signatures[0])
    model = bytes(proto.SerializeToString())
    logits = predict_onnx(model, pixels[None])[0]
    expected = np.mean([predict_onnx(member / "model.onnx", pixels[None])[0] for member in members], 0)
    # Written so that NaN is refused too.
    if not np.abs(logits - expected).max() <= PARITY_BOUND * np.abs(expected).max():
        raise CombineError("the committee's logits are not the mean of its members'")

    tested = report(predict_onnx(model, test.images), test.labels, test.classes) if test else None
    files = {"model.onnx": model, "golden.jpg": photo, "golden.npz": golden_arrays(pixels, logits)}
    card = _card(members, tested, test_data, len(model), command)
    return Committee(publish(repository, name, version, signatures[0], files, card), len(model), tested)


def mean_of(models: Sequence[onnx.ModelProto], signature: Signature) -> onnx.ModelProto:
    """One graph of several with one input and one output each: (N, H, W, 3) uint8 `pixels` to (N, K) `logits`.

    Raises:
        CombineError: they are of different opsets.
    """
    opsets = [sorted((opset.domain, opset.version) for opset in model.opset_import) for model in models]
    if any(opset != opsets[0] for opset in opsets):
        raise CombineError("the models are of different ONNX opsets: export them with the same version")
    size, classes = signature.image_size, len(signature.classes)
    graph = helper.make_graph(
        [],
        "committee",
        [helper.make_tensor_value_info("pixels", onnx.TensorProto.UINT8, ["N", size, size, 3])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", classes])],
    )
    outputs = []
    for number, model in enumerate(models, 1):
        member = compose.add_prefix(model, f"member{number}_").graph
        (given,), (found,) = member.input, member.output
        for node in member.node:
            node.input[:] = ["pixels" if name == given.name else name for name in node.input]
        graph.node.extend(member.node)
        graph.initializer.extend(member.initializer)
        outputs.append(found.name)
    graph.node.append(helper.make_node("Mean", outputs, ["logits"], name="mean"))
    combined = helper.make_model(graph, opset_imports=models[0].opset_import, ir_version=models[0].ir_version)
    onnx.checker.check_model(combined, full_check=True)
    return combined


def _golden_photo(member: Path) -> tuple[bytes, Pixels]:
    try:
        with (member / "golden.npz").open("rb") as file, np.load(file, allow_pickle=False) as golden:
            return (member / "golden.jpg").read_bytes(), golden["pixels"]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise CombineError(f"{member}: its golden sample cannot be read: {error}") from error


def _card(members: Sequence[Path], tested: Report | None, test_data: str | None, model_bytes: int, command: str) -> str:
    accuracy = "not measured"
    if tested:
        accuracy = (
            f"{tested.accuracy:.4f} on {tested.images} images (test split of `{test_data}`), expected calibration "
            f"error {tested.calibration_error:.4f}"
        )
    facts = {
        "Members": f"{len(members)}; the logits are the mean of theirs; their own cards are below",
        "Accuracy": accuracy,
        "Size": f"{model_bytes / 1e6:.1f} MB",
    }
    cards = [quoted(member.parent, f"Member {number}") for number, member in enumerate(members, 1)]
    return section(facts, [command], *cards)
