from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto
from onnx.numpy_helper import to_array

import model.export
import model.speed
import model.variants.make
from model.command_line import main
from model.data import Dataset, synthetic
from model.evaluate import Logits, predict_onnx
from model.export import export
from model.images import Pixels
from model.recipe import RECIPES
from model.repository import RepositoryError, read_signature
from model.run import Run
from model.train import train
from model.variants import KINDS, PRECISIONS
from model.variants.kind import VariantError
from model.variants.make import Variant, compare, make_variant, measure_speed

COMMAND = "python -m model quantize"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def short_rounds() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.variants.make, "SPEED_ROUNDS", 3)
        patch.setattr(model.speed, "ROUND_S", 0.001)
        yield


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return synthetic("train", image_size=16, count=240)


@pytest.fixture(scope="module")
def repository(dataset: Dataset, short_rounds: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`fastcnn` and `lenet`, trained well enough to have an opinion."""
    folder, runs = tmp_path_factory.mktemp("repository"), tmp_path_factory.mktemp("runs")
    origin = {"command": "python -m model train synthetic", "data": "synthetic"}
    for net, epochs in {"fastcnn": 5, "lenet": 12}.items():
        recipe = replace(RECIPES[net], epochs=epochs, averaged_epochs=0, batch_size=24)
        run = train(dataset, None, recipe, runs / net, device=CPU, origin=origin)
        export(run, folder, net, command="python -m model export")
    return folder


@pytest.fixture(scope="module")
def variants(repository: Path, dataset: Dataset) -> dict[tuple[str, str], Variant]:
    test = synthetic("test", image_size=16, count=30)
    return {
        (net, kind): make_variant(
            repository / net / "1",
            f"{net}_{kind}",
            KINDS[kind],
            command=COMMAND,
            train=dataset,
            test=test,
            data="synthetic",
            calibration_images=100,
        )
        for net in ("fastcnn", "lenet")
        for kind in KINDS
    }


@pytest.fixture
def source(repository: Path, tmp_path: Path) -> Path:
    """A version of its own for a test that adds to it."""
    shutil.copytree(repository / "lenet", tmp_path / "repository" / "lenet")
    return tmp_path / "repository" / "lenet" / "1"


def weights(file: Path) -> list[onnx.TensorProto]:
    return [tensor for tensor in onnx.load(file).graph.initializer if ".weight" in tensor.name and len(tensor.dims) > 1]


@pytest.mark.parametrize("net", ["fastcnn", "lenet"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_variant_takes_and_returns_what_its_model_does(
    net: str, kind: str, repository: Path, variants: dict[tuple[str, str], Variant]
) -> None:
    made = variants[net, kind]
    assert made.folder == repository / f"{net}_{kind}" / "1"
    assert {path.name for path in made.folder.iterdir()} == {"model.onnx", "golden.jpg", "golden.npz"}
    assert read_signature(made.folder / "model.onnx") == read_signature(repository / net / "1" / "model.onnx")
    session = ort.InferenceSession(made.folder / "model.onnx")
    (pixels,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (pixels.name, pixels.type, pixels.shape) == ("pixels", "tensor(uint8)", ["N", 16, 16, 3])
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["N", 3])


@pytest.mark.parametrize("net", ["fastcnn", "lenet"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_variant_agrees_with_float32_at_any_batch_size(
    batch_size: int, kind: str, net: str, repository: Path, variants: dict[tuple[str, str], Variant]
) -> None:
    images = synthetic("test", image_size=16, count=64).images[-batch_size:]
    expected = predict_onnx(repository / net / "1" / "model.onnx", images)
    found = compare(predict_onnx(variants[net, kind].folder / "model.onnx", images), expected)
    assert found.images == batch_size
    assert found.error <= KINDS[kind].error


def test_int8_holds_all_but_the_first_and_the_last_layer_in_8_bits(
    variants: dict[tuple[str, str], Variant],
) -> None:
    made = variants["fastcnn", "int8"]
    assert made.model_bytes == (made.folder / "model.onnx").stat().st_size < 0.3 * made.float32_bytes
    proto = onnx.load(made.folder / "model.onnx")
    onnx.checker.check_model(proto, full_check=True)
    producers = {output: node.op_type for node in proto.graph.node for output in node.output}
    layers = [node for node in proto.graph.node if node.op_type in ("Conv", "Gemm")]
    from_int8 = [[producers.get(name) == "DequantizeLinear" for name in layer.input[:2]] for layer in layers]
    assert from_int8 == [[False, False], *[[True, True]] * 6, [False, False]]
    quantized = [tensor for tensor in weights(made.folder / "model.onnx") if tensor.data_type != TensorProto.FLOAT]
    assert [tensor.data_type for tensor in quantized] == [TensorProto.INT8] * 6
    # More than 7 bits, and the sums of processors without VNNI could saturate.
    assert {int(np.abs(to_array(tensor).astype(int)).max()) for tensor in quantized} == {64}


@pytest.mark.parametrize("net", ["fastcnn", "lenet"])
def test_float16_holds_every_weight_in_16_bits(net: str, variants: dict[tuple[str, str], Variant]) -> None:
    made = variants[net, "float16"]
    assert made.model_bytes < 0.55 * made.float32_bytes
    assert {tensor.data_type for tensor in weights(made.folder / "model.onnx")} == {TensorProto.FLOAT16}


@pytest.mark.parametrize("kind", KINDS)
def test_gelu_is_one_operator_of_the_standard(kind: str, variants: dict[tuple[str, str], Variant]) -> None:
    proto = onnx.load(variants["fastcnn", kind].folder / "model.onnx")
    operators = Counter((node.domain, node.op_type) for node in proto.graph.node)
    assert operators["", "Gelu"] == 7
    assert operators["", "Erf"] == 0
    assert {opset.domain: opset.version for opset in proto.opset_import} == {"": 20}


def test_int8_runs_in_int8(variants: dict[tuple[str, str], Variant], tmp_path: Path) -> None:
    """ONNX Runtime fuses every quantized convolution."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3  # that the optimised file is this machine's
    for net, layers in {"fastcnn": {"QLinearConv": 6}, "lenet": {"QLinearConv": 1, "QGemm": 2}}.items():
        ort.InferenceSession(variants[net, "int8"].folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        operators = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
        assert {name: operators[name] for name in layers} == layers


@pytest.mark.parametrize("net", ["fastcnn", "lenet"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_golden_sample_is_the_models_with_the_variants_logits(
    net: str, kind: str, repository: Path, variants: dict[tuple[str, str], Variant]
) -> None:
    folder, original = variants[net, kind].folder, repository / net / "1"
    assert (folder / "golden.jpg").read_bytes() == (original / "golden.jpg").read_bytes()
    with np.load(folder / "golden.npz") as golden, np.load(original / "golden.npz") as expected:
        assert np.array_equal(golden["pixels"], expected["pixels"])
        assert golden["pixel_tolerance"] == expected["pixel_tolerance"]
        own = predict_onnx(folder / "model.onnx", expected["pixels"][None])[0]
        assert np.abs(golden["logits"] - own).max() <= 1e-5 * np.abs(own).max()
        assert golden["logits"].dtype == np.float32
        assert golden["logits"].argmax() == expected["logits"].argmax()
        assert golden["logit_tolerance"] == {"int8": 0.05, "float16": 0.02, "optimised": 0.02}[kind]


def test_the_card_says_what_was_measured(repository: Path, variants: dict[tuple[str, str], Variant]) -> None:
    made = variants["lenet", "int8"]
    card = (repository / "lenet_int8" / "model_card.md").read_text()
    assert made.tested is not None
    assert made.float32_tested is not None
    assert made.comparison.images == 101
    for fact in (
        "# lenet_int8\n\n## Version 1\n",
        "| Variant of | `lenet` version 1 |",
        "| Calibration | 100 training images of `synthetic`, seed 0 |",
        f"| {made.tested.accuracy:.4f} on 30 images (test split of `synthetic`); float32: "
        f"{made.float32_tested.accuracy:.4f} |",
        f"{made.comparison.error:.4f} on average, the same top-1 on {made.comparison.agreement:.4f} of 101 images",
        f"```sh\n{COMMAND}\n```",
        "| batch size | images/s |",
        f"| 16 | {made.speeds[16].variant:.0f} | {made.speeds[16].float32:.0f} |",
    ):
        assert fact in card
    assert "| Calibration | none |" in (repository / "lenet_float16" / "model_card.md").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_says_nothing_of_where_it_was_made(
    kind: str, variants: dict[tuple[str, str], Variant], tmp_path: Path
) -> None:
    content = (variants["fastcnn", kind].folder / "model.onnx").read_bytes()
    assert str(Path(model.export.__file__).parent.parent).encode() not in content
    assert str(tmp_path.parent.parent).encode() not in content


def test_quantizing_leaves_the_model_as_it_was(source: Path) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in source.parent.rglob("*") if path.is_file()}

    before = content()
    made = make_variant(source, "half", KINDS["float16"], command=COMMAND)
    assert content() == before
    assert {path.name for path in source.parent.parent.iterdir()} == {"lenet", "half"}
    assert made.comparison.images == 1
    assert (made.tested, made.float32_tested) == (None, None)
    assert "| Accuracy | not measured |" in (made.folder.parent / "model_card.md").read_text()


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ({"error": 1e-9}, r"differ from float32's by 0\.\d{4} of the largest on average \(allowed: 1e-09\)"),
        ({"agreement": 1.1}, r"its top-1 is the same on [01]\.\d{4} \(at least: 1\.1\) of 41 images"),
    ],
)
def test_a_variant_out_of_bounds_is_not_published(
    bound: dict[str, float], message: str, source: Path, dataset: Dataset
) -> None:
    kind = replace(KINDS["int8"], **bound)  # type: ignore[arg-type]
    with pytest.raises(VariantError, match=message):
        make_variant(source, "eighth", kind, command=COMMAND, train=dataset, calibration_images=40)
    assert {path.name for path in source.parent.parent.iterdir()} == {"lenet"}


def test_a_net_that_knows_too_little_to_lose_any_of_it_has_no_int8_variant(
    fastcnn_run: Run, dataset: Dataset, tmp_path: Path
) -> None:
    """After two epochs, its logits are hardly apart."""
    source = export(fastcnn_run, tmp_path, "shapes", command="python -m model export").folder
    with pytest.raises(VariantError, match="differ from float32's by"):
        make_variant(source, "eighth", KINDS["int8"], command=COMMAND, train=dataset, calibration_images=100)
    assert {path.name for path in tmp_path.iterdir()} == {"shapes"}


@pytest.mark.parametrize(
    ("factor", "message"),
    [(np.nan, "differ from float32's by nan"), (-1, r"the golden photo is of class \d, and of \d in float32")],
)
def test_a_golden_photo_that_comes_out_otherwise_is_not_published(
    factor: float, message: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def predict(file: Path | bytes, images: Pixels) -> Logits:
        return predict_onnx(file, images) * np.float32(factor if isinstance(file, bytes) else 1)

    monkeypatch.setattr(model.variants.make, "predict_onnx", predict)
    lenient = replace(KINDS["float16"], error=9, agreement=0)
    with pytest.raises(VariantError, match=message):
        make_variant(source, "half", lenient, command=COMMAND)
    assert {path.name for path in source.parent.parent.iterdir()} == {"lenet"}


def test_a_variant_is_another_model(source: Path) -> None:
    with pytest.raises(VariantError, match="lenet: a variant is a model of its own"):
        make_variant(source, "lenet", KINDS["float16"], command=COMMAND)


@pytest.mark.parametrize("kind", PRECISIONS)
def test_a_variant_of_a_variant_is_refused(
    kind: str, variants: dict[tuple[str, str], Variant], dataset: Dataset
) -> None:
    with pytest.raises(VariantError, match="is a variant itself"):
        make_variant(variants["lenet", kind].folder, "again", KINDS[kind], command=COMMAND, train=dataset)


def test_int8_needs_images(source: Path, dataset: Dataset) -> None:
    for train_images in (None, dataset.subset(np.array([0]))):
        with pytest.raises(VariantError, match="eighth: needs training images to calibrate on: at least 2"):
            make_variant(source, "eighth", KINDS["int8"], command=COMMAND, train=train_images)


def test_a_model_without_a_golden_sample_is_refused(source: Path) -> None:
    (source / "golden.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(VariantError, match="golden sample cannot be read"):
        make_variant(source, "half", KINDS["float16"], command=COMMAND)
    (source / "golden.jpg").unlink()
    with pytest.raises(VariantError, match=r"golden sample cannot be read: .*golden\.jpg"):
        make_variant(source, "half", KINDS["float16"], command=COMMAND)


def test_unsafe_names_are_refused(source: Path) -> None:
    with pytest.raises(RepositoryError, match="must be letters"):
        make_variant(source, "../half", KINDS["float16"], command=COMMAND)


def test_compare() -> None:
    expected = np.array([[4, 0, -2], [0, 1, 0], [0, -10, 0]], np.float32)
    found = np.array([[4, 1, -2], [0.5, 0.4, 0], [0, -10, 0]], np.float32)
    comparison = compare(found, expected)
    assert (comparison.images, comparison.error, comparison.agreement) == pytest.approx(
        (3, (0.25 + 0.6 + 0) / 3, 2 / 3)
    )
    assert np.isnan(compare(found * np.nan, expected).error)


@pytest.mark.usefixtures("short_rounds")
def test_speed_is_a_ratio_round_by_round(repository: Path) -> None:
    file = repository / "fastcnn" / "1" / "model.onnx"
    speed = measure_speed(
        repository / "lenet" / "1" / "model.onnx", file.read_bytes(), np.zeros((2, 16, 16, 3), np.uint8)
    )
    assert len(speed.ratios) == 3
    assert speed.variant < speed.float32
    assert max(speed.ratios) < 1


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.mark.usefixtures("short_rounds")
def test_the_command(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = source.parent
    shutil.copytree(source, entry / "2")
    given = ("quantize", entry, "--precision", "float16")
    assert run(*given) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert [line.split(":")[0] for line in printed.out.splitlines()] == [
        "against float32",
        "speed at batch size 1",
        "speed at batch size 16",
        "written",
    ]
    card = entry.parent / "lenet_float16" / "model_card.md"
    assert "| Variant of | `lenet` version 2 |" in card.read_text()
    assert f"python -m model quantize {entry} --precision float16\n" in card.read_text()
    assert "### The model it is a variant of\n\n#### lenet\n\n##### Version 1" in card.read_text()

    assert run(*given, "--version", 1) == 0
    assert "## Version 2\n\n|  |  |\n| --- | --- |\n| Variant of | `lenet` version 1 |" in card.read_text()
    assert run(*given, "--name", "half") == 0
    assert (entry.parent / "half" / "1" / "model.onnx").is_file()


@pytest.mark.usefixtures("short_rounds")
@pytest.mark.parametrize(("inside", "given"), [("", "."), ("1", "..")])
def test_the_command_from_inside_the_models_folder(
    inside: str, given: str, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.parent / inside)
    assert run("quantize", given, "--precision", "float16") == 0
    assert {path.name for path in source.parent.parent.iterdir()} == {"lenet", "lenet_float16"}
    assert [path.name for path in source.parent.iterdir() if path.is_dir()] == ["1"]


@pytest.mark.usefixtures("short_rounds")
def test_the_command_with_photos(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    repository = tmp_path / "repository"
    assert run("train", photos, "--run", tmp_path / "run", "--net", "lenet", "--epochs", 12) == 0
    assert run("export", tmp_path / "run", "--repository", repository, "--name", "light") == 0
    capsys.readouterr()
    given = ("quantize", repository / "light", "--precision", "int8", "--data", photos)
    assert run(*given, "--calibration-images", 8) == 0
    printed = capsys.readouterr().out
    assert "of 9 images" in printed
    assert "accuracy: 1.0000, float32 1.0000, on 8 images" in printed

    shutil.rmtree(photos / "test")
    assert run(*given, "--name", "untested") == 0
    assert "accuracy" not in capsys.readouterr().out
    (photos / "train" / "dim").mkdir()
    assert run(*given) == 1
    assert "its classes are bright, dark, dim; the model's are bright, dark" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "No such file or directory: 'nowhere'"),
        (["."], ".: holds no version of a model"),
        (["lenet", "--version", "7"], "lenet/7/model.onnx: cannot be read"),
        (["lenet", "--name", "lenet"], "lenet: a variant is a model of its own"),
        (["lenet"], "lenet_int8: needs training images"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    message: str,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(source.parent.parent)
    assert run("quantize", *arguments, "--precision", "int8") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
