"""A small network, trained here, and its variants: served where all is right, refused where it is not."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx.numpy_helper import from_array, to_array
from PIL import Image

import model.speed
from model.data import synthetic
from model.export import export
from model.recipe import RECIPES
from model.train import train
from model.variants import KINDS
from model.variants.make import make_variant
from tests.service.conftest import change_golden
from tests.service.launch import RunningService, running

NAMES = ("shapes", *(f"shapes_{kind}" for kind in KINDS))

Break = Callable[[Path], None]


def configured(old: str, new: str) -> Break:
    """Served with another parameter than training had."""

    def apply(entry: Path) -> None:
        config = entry / "config.pbtxt"
        text = config.read_text()
        assert text.count(f'"{old}"') == 1
        config.write_text(text.replace(f'"{old}"', f'"{new}"'))

    return apply


def golden(**changes: object) -> Break:
    return lambda entry: change_golden(entry / "1", **changes)


def head(change: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]) -> Break:
    """Another network than the one that was trained: its last layer is changed."""

    def apply(entry: Path) -> None:
        file = entry / "1" / "model.onnx"
        proto = onnx.load(file)
        (tensor,) = (tensor for tensor in proto.graph.initializer if tensor.name == "net.head.weight")
        weights = to_array(tensor)
        tensor.CopyFrom(from_array(change(weights.astype(np.float32)).astype(weights.dtype), tensor.name))
        onnx.save(proto, file)

    return apply


def not_turned(entry: Path) -> None:
    """The photo without its orientation: as a decoder sees it that does not know of any."""
    photo = entry / "1" / "golden.jpg"
    with Image.open(photo) as image:
        image.save(photo, quality="keep", exif=b"")


def another_class(entry: Path) -> None:
    """Far from what training had, where that is allowed: the class must be the same all the same."""
    head(lambda weights: np.roll(weights, 1, 0))(entry)
    golden(logit_tolerance=lambda _: 10)(entry)


WRONG: dict[str, tuple[Break, str]] = {
    "filter": (configured("bilinear", "bicubic"), r"preprocessing differs from training by up to \d+ levels"),
    "short_side": (configured("16", "18"), r"preprocessing differs from training by up to \d+ levels"),
    "channels": (configured("RGB", "BGR"), r"logits differ by \d\.\d+ of the largest"),
    "pixels": (
        golden(pixels=lambda pixels: pixels[..., ::-1]),
        r"preprocessing differs from training by up to \d+ levels",
    ),
    "turn": (not_turned, r"preprocessing differs from training by up to \d+ levels"),
    "weights": (head(lambda weights: weights * np.float32(1.1)), r"logits differ by (0\.1|0\.099) of the largest"),
    "class": (another_class, r"class \d here, \d in training"),
    "nan_weights": (head(lambda weights: weights * np.float32(np.nan)), "logits of a black image are not finite"),
    "nan_logits": (golden(logits=lambda logits: logits * np.nan), "logits differ by nan"),
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`shapes`, its variants, and `unproven`, which has no golden sample."""
    torch.set_num_threads(1)  # beside other work, two wait for each other
    folder = tmp_path_factory.mktemp("skew_gate")
    dataset = synthetic("train", image_size=16, count=240)
    recipe = replace(RECIPES["fastcnn"], epochs=5, averaged_epochs=0, batch_size=24)
    origin = {"command": "python -m model train synthetic", "data": "synthetic"}
    run = train(dataset, None, recipe, tmp_path_factory.mktemp("run"), device=torch.device("cpu"), origin=origin)
    exported = export(run, folder, "shapes", command="python -m model export").folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.speed, "ROUND_S", 0.001)
        for kind in KINDS:
            make_variant(exported, f"shapes_{kind}", KINDS[kind], command="quantize", train=dataset)
    copy(folder, "shapes", folder, "unproven")
    for name in ("golden.jpg", "golden.npz"):
        (folder / "unproven" / "1" / name).unlink()
    return folder


@pytest.fixture(scope="module")
def served(repository: Path) -> Iterator[RunningService]:
    with running(repository) as service:
        yield service


@pytest.fixture(scope="module")
def refused(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Each of them, wrong in each way."""
    folder = tmp_path_factory.mktemp("refused")
    for name in NAMES:
        for wrong, (apply, _) in WRONG.items():
            apply(copy(repository, name, folder, f"{name}-{wrong}"))
    with running(folder) as service:
        yield service


def copy(source: Path, name: str, folder: Path, new_name: str) -> Path:
    entry = Path(shutil.copytree(source / name, folder / new_name))
    configured(name, new_name)(entry)
    return entry


def check_served(service: RunningService, repository: Path, name: str) -> None:
    (version,) = httpx.get(f"{service.http}/v1/models/{name}", timeout=60).json()["versions"]
    assert (version["state"], version["reason"], version["proven"]) == ("READY", "", True)
    folder = repository / name / "1"
    with np.load(folder / "golden.npz") as expected:
        top = int(expected["logits"].argmax())
    photo = (folder / "golden.jpg").read_bytes()
    assert classify(service, name, photo)[0]["index"] == top


def classify(service: RunningService, name: str, photo: bytes) -> list[dict[str, object]]:
    answer = httpx.post(
        f"{service.http}/v1/classify?model={name}", content=photo, headers={"content-type": "image/jpeg"}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    predictions: list[dict[str, object]] = answer.json()["predictions"]
    return predictions


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_out_as_in_training_is_served_and_proven(
    name: str, served: RunningService, repository: Path
) -> None:
    assert httpx.get(f"{served.http}/v2/health/ready", timeout=60).status_code == 200
    check_served(served, repository, name)


def test_what_has_no_golden_sample_is_served_and_marked(served: RunningService, repository: Path) -> None:
    (version,) = httpx.get(f"{served.http}/v1/models/unproven", timeout=60).json()["versions"]
    assert (version["state"], version["reason"], version["proven"]) == ("READY", "", False)
    photo = (repository / "shapes" / "1" / "golden.jpg").read_bytes()
    assert classify(served, "unproven", photo) == classify(served, "shapes", photo)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("name", NAMES)
def test_what_comes_out_otherwise_is_refused_and_says_why(name: str, wrong: str, refused: RunningService) -> None:
    (version,) = httpx.get(f"{refused.http}/v1/models/{name}-{wrong}", timeout=60).json()["versions"]
    assert (version["state"], version["proven"]) == ("UNAVAILABLE", False)
    assert re.search(WRONG[wrong][1], version["reason"])
    ready = httpx.get(f"{refused.http}/v2/health/ready", timeout=60)
    assert ready.status_code == 503
    assert f"{name}-{wrong} version 1: {version['reason']}" in ready.json()["error"]


@pytest.mark.skipif(
    "CUDAExecutionProvider" not in ort.get_available_providers(),
    reason="this onnxruntime has no CUDA provider (the extra 'gpu' has it)",
)
def test_all_come_out_as_in_training_on_a_gpu(repository: Path) -> None:
    with running(repository, execution_provider="cuda") as service:
        for name in NAMES:
            check_served(service, repository, name)
