from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper
from tritonclient.grpc import model_config_pb2

from model.repository import RepositoryError, Signature, config, next_version, publish, read_signature

SIGNATURE = Signature(("cat", "dog"), 32)


def onnx_file(
    input_type: int = TensorProto.UINT8,
    input_shape: tuple[int | str, ...] = ("N", 32, 32, 3),
    output: str = "logits",
) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Constant", [], [output], value_floats=[0.0, 0.0])],
        "constant",
        [helper.make_tensor_value_info("pixels", input_type, input_shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ("N", 2))],
    )
    return bytes(helper.make_model(graph).SerializeToString())


def put(repository: Path, version: int, signature: Signature = SIGNATURE) -> Path:
    return publish(repository, "pets", version, signature, {"model.onnx": onnx_file()}, f"Card {version}.\n")


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_config_is_a_model_config_of_triton() -> None:
    parsed = text_format.Parse(config("pets", SIGNATURE), model_config_pb2.ModelConfig())
    assert parsed.name == "pets"
    assert parsed.backend == "onnxruntime"
    assert parsed.max_batch_size == 64
    assert parsed.HasField("dynamic_batching")
    (pixels,), (logits,) = parsed.input, parsed.output
    assert (pixels.name, pixels.data_type) == ("pixels", model_config_pb2.TYPE_UINT8)
    assert pixels.format == model_config_pb2.ModelInput.FORMAT_NHWC
    assert list(pixels.dims) == [32, 32, 3]
    assert (logits.name, logits.data_type) == ("logits", model_config_pb2.TYPE_FP32)
    assert list(logits.dims) == [2]
    assert logits.label_filename == "labels.txt"
    assert {key: value.string_value for key, value in parsed.parameters.items()} == {
        "preprocessing.resize_short_side": "32",
        "preprocessing.resize_filter": "bilinear",
        "preprocessing.crop": "center",
        "preprocessing.channel_order": "RGB",
    }


def test_the_first_version_brings_the_entry(tmp_path: Path) -> None:
    repository = tmp_path / "new" / "repository"
    assert next_version(repository, "pets", SIGNATURE) == 1
    assert put(repository, 1) == repository / "pets" / "1"
    assert tree(repository) == ["pets"] + [
        f"pets/{name}" for name in ("1", "1/model.onnx", "config.pbtxt", "labels.txt", "model_card.md")
    ]
    assert (repository / "pets" / "labels.txt").read_text() == "cat\ndog\n"
    assert (repository / "pets" / "model_card.md").read_text() == "# pets\n\n## Version 1\n\nCard 1.\n"


def test_the_next_version_leaves_the_entry_as_its_owner_tuned_it(tmp_path: Path) -> None:
    put(tmp_path, 1)
    (tmp_path / "pets" / "config.pbtxt").write_text("tuned")
    assert next_version(tmp_path, "pets", SIGNATURE) == 2
    put(tmp_path, 2)
    assert (tmp_path / "pets" / "config.pbtxt").read_text() == "tuned"
    card = (tmp_path / "pets" / "model_card.md").read_text()
    assert card == "# pets\n\n## Version 2\n\nCard 2.\n\n## Version 1\n\nCard 1.\n"
    assert "pets/2/model.onnx" in tree(tmp_path)
    assert not [name for name in tree(tmp_path) if ".new" in name]


def test_versions_count_on_from_the_newest(tmp_path: Path) -> None:
    for version in (1, 9, 10):
        put(tmp_path, version)
    (tmp_path / "pets" / "notes").mkdir()
    assert next_version(tmp_path, "pets", SIGNATURE) == 11


@pytest.mark.parametrize("signature", [Signature(("dog", "cat"), 32), Signature(("cat", "dog"), 64)])
def test_another_model_must_have_another_name(signature: Signature, tmp_path: Path) -> None:
    put(tmp_path, 1)
    with pytest.raises(RepositoryError, match=r"holds a model of 2 classes \(cat, dog\) at 32x32.*under another name"):
        next_version(tmp_path, "pets", signature)


def test_a_folder_that_is_no_model_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    with pytest.raises(RepositoryError, match="holds no version of a model"):
        next_version(tmp_path, "pets", SIGNATURE)


@pytest.mark.parametrize("name", ["", ".hidden", "..", "a/b", "a b", "ä", 'a"', "a\n"])
def test_names_that_are_no_safe_file_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match=r"model name .*: must be letters"):
        next_version(tmp_path, name, SIGNATURE)


@pytest.mark.parametrize("label", ["two\nlines", "", "line\x85feed"])
def test_a_label_is_one_line(label: str, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="must be one line of text"):
        next_version(tmp_path, "pets", Signature((label,), 32))


@pytest.mark.parametrize("version", [1, 2])
def test_a_crash_leaves_nothing_behind(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if version == 2:
        put(tmp_path, 1)
    before = tree(tmp_path)
    written: list[str] = []
    write_bytes = Path.write_bytes

    def full_disk(path: Path, content: bytes) -> int:
        if written:
            raise OSError("No space left on device")
        written.append(path.name)
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        publish(tmp_path, "pets", version, SIGNATURE, {"model.onnx": b"1", "golden.jpg": b"2"}, "card")
    assert tree(tmp_path) == before


def test_a_version_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    put(tmp_path, 1)
    put(tmp_path, 2)
    before = tree(tmp_path)
    with pytest.raises(RepositoryError, match=r"pets/2: cannot be put in place"):
        put(tmp_path, 2)
    assert tree(tmp_path) == before
    assert (tmp_path / "pets" / "model_card.md").read_text().count("## Version 2") == 1


def test_a_signature_is_read_back(tmp_path: Path) -> None:
    assert read_signature(put(tmp_path, 1) / "model.onnx") == SIGNATURE


@pytest.mark.parametrize(
    "content",
    [onnx_file(TensorProto.FLOAT), onnx_file(input_shape=("N", 3, 32, 32)), onnx_file(input_shape=("N", 32, 31, 3))],
)
def test_a_model_that_takes_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    file = put(tmp_path, 1) / "model.onnx"
    file.write_bytes(content)
    with pytest.raises(RepositoryError, match=r"must take uint8 pixels \[N, H, H, 3\]"):
        read_signature(file)


def test_a_file_that_does_not_fit_its_labels_is_refused(tmp_path: Path) -> None:
    file = put(tmp_path, 1) / "model.onnx"
    (tmp_path / "pets" / "labels.txt").write_text("cat\ndog\nship\n")
    with pytest.raises(RepositoryError, match=r"labels\.txt: 3 labels, but the model returns 2 logits"):
        read_signature(file)
    (tmp_path / "pets" / "labels.txt").unlink()
    with pytest.raises(RepositoryError, match=r"cannot be read with its labels"):
        read_signature(file)
    (tmp_path / "pets" / "labels.txt").write_text("cat\ndog\n")
    file.write_bytes(b"not a model")
    with pytest.raises(RepositoryError, match="not an ONNX file"):
        read_signature(file)


def test_the_fixture_is_a_model() -> None:
    onnx.checker.check_model(onnx.load_from_string(onnx_file()))


FEATURES = Signature((), 32, features=2)


def test_the_config_of_features_says_so() -> None:
    parsed = text_format.Parse(config("pets", FEATURES), model_config_pb2.ModelConfig())
    (features,) = parsed.output
    assert (features.name, list(features.dims), features.label_filename) == ("features", [2], "")
    assert parsed.parameters["features.output"].string_value == "features"


def test_features_have_no_labels_and_a_name_of_their_own(tmp_path: Path) -> None:
    content = onnx_file(output="features")
    folder = publish(tmp_path, "pets_features", 1, FEATURES, {"model.onnx": content}, "Card.\n")
    assert not (folder.parent / "labels.txt").exists()
    assert read_signature(folder / "model.onnx") == FEATURES
    assert next_version(tmp_path, "pets_features", FEATURES) == 2
    with pytest.raises(RepositoryError, match=r"holds a model of 2 features at 32x32 pixels.*under another name"):
        next_version(tmp_path, "pets_features", SIGNATURE)
    put(tmp_path, 1)
    with pytest.raises(RepositoryError, match=r"this one is of 2 features at 32x32 pixels"):
        next_version(tmp_path, "pets", FEATURES)
