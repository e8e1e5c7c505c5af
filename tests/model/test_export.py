from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from PIL import Image

import model.export
from model.data import Dataset, synthetic
from model.evaluate import predict, predict_onnx
from model.export import ExportError, export, parity, to_onnx
from model.golden import draw_photo
from model.images import read_pixels
from model.neighbours import neighbours
from model.repository import RepositoryError, Signature, read_signature
from model.run import Run

COMMAND = "python -m model export run"
ORIGIN = {"command": "python -m model train synthetic", "data": "synthetic"}


@pytest.fixture(scope="module")
def exported(fastcnn_run: Run) -> bytes:
    return to_onnx(fastcnn_run)


@pytest.fixture
def fast_export(exported: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing takes seconds and gives the same file each time."""
    monkeypatch.setattr(model.export, "to_onnx", lambda *_: exported)


def test_the_graph_takes_pixels_and_returns_logits(exported: bytes) -> None:
    proto = onnx.load_from_string(exported)
    onnx.checker.check_model(proto, full_check=True)
    (pixels,), (logits,) = ort.InferenceSession(exported).get_inputs(), ort.InferenceSession(exported).get_outputs()
    assert (pixels.name, pixels.type, pixels.shape) == ("pixels", "tensor(uint8)", ["N", 16, 16, 3])
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["N", 3])


def test_an_older_runtime_reads_the_file(exported: bytes) -> None:
    proto = onnx.load_from_string(exported)
    assert [opset.version for opset in proto.opset_import if opset.domain == ""] == [18]
    assert proto.ir_version <= 10
    assert {opset.domain for opset in proto.opset_import} == {""}


def test_the_file_says_nothing_of_where_it_was_made(exported: bytes) -> None:
    proto = onnx.load_model_from_string(exported)
    # Among so many weights any three bytes turn up.
    del proto.graph.initializer[:]
    described = proto.SerializeToString()
    assert str(Path(model.export.__file__).parent.parent).encode() not in described
    assert b".py" not in described
    assert not any(initializer.external_data for initializer in onnx.load_from_string(exported).graph.initializer)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_any_batch_size_agrees_with_pytorch(batch_size: int, exported: bytes, fastcnn_run: Run) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (batch_size, 16, 16, 3), np.uint8)
    expected = predict(fastcnn_run.net, fastcnn_run.preprocess, pixels, torch.device("cpu"))
    assert np.abs(predict_onnx(exported, pixels) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_parity_tells_a_wrong_file(exported: bytes, fastcnn_run: Run) -> None:
    pixels = read_pixels(io.BytesIO(draw_photo(16)), 16)
    assert max(parity(fastcnn_run, exported, pixels).values()) < 1e-4
    proto = onnx.load_from_string(exported)
    head = next(initializer for initializer in proto.graph.initializer if initializer.name == "net.head.weight")
    head.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(head) * np.float32(1.01), head.name))
    errors = parity(fastcnn_run, proto.SerializeToString(), pixels)
    assert list(errors) == [1, 3, 64]
    assert min(errors.values()) > 1e-4


def test_an_entry_holds_all_that_serving_needs(fastcnn_run: Run, tmp_path: Path) -> None:
    test = synthetic("test", image_size=16, count=30)
    done = export(fastcnn_run, tmp_path, "shapes", command=COMMAND, test=test, test_data="synthetic")
    assert done.folder == tmp_path / "shapes" / "1"
    assert {path.name for path in done.folder.iterdir()} == {"model.onnx", "golden.jpg", "golden.npz"}
    assert done.model_bytes == (done.folder / "model.onnx").stat().st_size
    assert done.tested is not None
    assert done.tested.images == 30
    assert {path.name for path in tmp_path.iterdir()} == {"shapes"}
    card = (tmp_path / "shapes" / "model_card.md").read_text()
    for fact in (
        f"{done.tested.accuracy:.4f} on 30 images (test split of `synthetic`)",
        "disc, square, cross",
        "16x16 RGB",
        "fastcnn, 1971000 parameters",
        "| Epochs | 2 of 2 |",
        f"| Training time | {fastcnn_run.training_time()} |",
        "| Seed | 0 |",
        "batch_size 9",
        "python -m model train synthetic\n",
        COMMAND,
        "| epoch | step | loss |",
        "| 2 | 20 | ",
    ):
        assert fact in card


@pytest.mark.usefixtures("fast_export")
def test_the_golden_sample_reproduces(fastcnn_run: Run, tmp_path: Path) -> None:
    folder = export(fastcnn_run, tmp_path, "shapes", command=COMMAND).folder
    pixels = read_pixels(str(folder / "golden.jpg"), 16)
    with np.load(folder / "golden.npz", allow_pickle=False) as golden:
        assert golden["pixels"].dtype == np.uint8
        assert np.array_equal(golden["pixels"], pixels)
        assert golden["logits"].dtype == np.float32
        assert golden["logits"].shape == (3,)
        assert np.array_equal(golden["logits"], predict_onnx(folder / "model.onnx", pixels[None])[0])
        assert int(golden["pixel_tolerance"]) == 1
        assert float(golden["logit_tolerance"]) == 0.02


@pytest.mark.usefixtures("fast_export")
def test_a_photo_can_be_the_golden_sample(fastcnn_run: Run, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    Image.effect_mandelbrot((61, 47), (-2, -1, 1, 1), 50).convert("RGB").save(photo)
    folder = export(fastcnn_run, tmp_path / "repository", "shapes", command=COMMAND, photo=photo).folder
    assert (folder / "golden.jpg").read_bytes() == photo.read_bytes()
    Image.new("RGB", (61, 47)).save(photo, "PNG")
    with pytest.raises(ExportError, match=r"photo\.jpg: the golden sample must be a readable JPEG"):
        export(fastcnn_run, tmp_path / "repository", "shapes", command=COMMAND, photo=photo)
    assert not (tmp_path / "repository" / "shapes" / "2").exists()


@pytest.mark.usefixtures("fast_export")
def test_a_strip_cannot_be_the_golden_sample(fastcnn_run: Run, tmp_path: Path) -> None:
    Image.new("RGB", (10, 2000)).save(tmp_path / "strip.jpg")
    with pytest.raises(
        ExportError, match=r"strip\.jpg: the golden sample must .* longer than 100 times its short side"
    ):
        export(fastcnn_run, tmp_path / "repository", "shapes", command=COMMAND, photo=tmp_path / "strip.jpg")


@pytest.mark.usefixtures("fast_export")
def test_exporting_again_adds_a_version(fastcnn_run: Run, tmp_path: Path) -> None:
    folders = [export(fastcnn_run, tmp_path, "shapes", command=COMMAND).folder.name for _ in range(3)]
    assert folders == ["1", "2", "3"]


@pytest.mark.usefixtures("fast_export")
def test_changed_labels_are_refused(fastcnn_run: Run, tmp_path: Path) -> None:
    export(fastcnn_run, tmp_path, "shapes", command=COMMAND)
    info = fastcnn_run.info | {"classes": ["circle", "square", "cross"]}
    renamed = Run(fastcnn_run.folder, fastcnn_run.net, fastcnn_run.preprocess, info)
    with pytest.raises(RepositoryError, match="publish it under another name"):
        export(renamed, tmp_path, "shapes", command=COMMAND)
    assert not (tmp_path / "shapes" / "2").exists()


@pytest.mark.usefixtures("fast_export")
@pytest.mark.parametrize("error", [2e-4, float("nan")])
def test_a_failing_export_leaves_nothing_behind(
    error: float, fastcnn_run: Run, shapes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.export, "parity", lambda *_: {1: 0.0, 3: error})
    with pytest.raises(ExportError, match="at batch size 3: at most 1e-04 is allowed"):
        export(fastcnn_run, tmp_path / "repository", "shapes", command=COMMAND, test=shapes)
    assert not list(tmp_path.iterdir())


def test_features_are_a_model_of_their_own(fastcnn_run: Run, tmp_path: Path) -> None:
    test = synthetic("test", image_size=16, count=30)
    done = export(
        fastcnn_run, tmp_path, "shapes_features", command=COMMAND, test=test, test_data="synthetic", features=True
    )
    assert list(done.parity) == [1, 3, 64]
    entry = tmp_path / "shapes_features"
    assert {path.name for path in entry.iterdir()} == {"1", "config.pbtxt", "model_card.md"}
    file = entry / "1" / "model.onnx"
    assert read_signature(file) == Signature((), 16, features=256)
    (features,) = ort.InferenceSession(file).get_outputs()
    assert (features.name, features.type, features.shape) == ("features", "tensor(float)", ["N", 256])
    # The last layer is not in the file.
    assert not [tensor for tensor in onnx.load(file).graph.initializer if "head" in tensor.name]
    found = predict_onnx(file, test.images)
    with np.load(entry / "1" / "golden.npz", allow_pickle=False) as golden:
        assert set(golden) == {"pixels", "features", "pixel_tolerance", "feature_tolerance"}
        assert np.array_equal(golden["features"], predict_onnx(file, golden["pixels"][None])[0])
    head = fastcnn_run.net.get_submodule("head")
    logits = head(torch.from_numpy(found)).detach().numpy() / 9
    expected = predict(fastcnn_run.net, fastcnn_run.preprocess, test.images, torch.device("cpu"))
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()
    assert done.tested is None
    assert done.neighbours == neighbours(found, test.images, test.labels)
    card = (entry / "model_card.md").read_text()
    assert "256 numbers, float32: what the network's last linear layer takes" in card
    assert f"{done.neighbours.features[10]:.4f} of the 10 nearest (by pixels {done.neighbours.pixels[10]:.4f})" in card
