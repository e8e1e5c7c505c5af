"""One folder of models, served by Fovea and by a real Triton server at the same time, answers alike.

What a config leaves to Triton's ONNX backend, `tests/triton/onnxruntime_backend` completes in its place.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from google.protobuf import text_format
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from onnx import TensorProto, helper
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import np_to_triton_dtype, triton_to_np_dtype

from tests.conformance import models
from tests.service import launch
from tests.triton import install
from tests.triton import launch as triton_launch

CIFAR10 = launch.ROOT / "model_repository" / "cifar10"
PIXELS = np.load(CIFAR10 / "1" / "golden.npz")["pixels"]

INDEX_DIFFERS = {
    "broken_config": "Fovea says that it cannot be served, and why; Triton only that it is there",
    "wrong_name": "the same",
    "no_versions": "Fovea says that it cannot be served, and why; Triton passes it over",
    "half_copied": "Fovea serves the version before the one without a graph, Triton none",
    "one_broken": "Fovea serves the version that can be, Triton all or none",
    "missing_version": "Fovea refuses a policy that names a version without a folder, Triton passes that over",
}
CONFIG_DIFFERS = {
    "Triton's own name for its backend that is written in Python": ("runtime",),
    "filled in by Triton; without effect in Fovea": (
        "dynamic_batching.preferred_batch_size[0]",
        "optimization",
        "optimization.input_pinned_memory",
        "optimization.input_pinned_memory.enable",
        "optimization.output_pinned_memory",
        "optimization.output_pinned_memory.enable",
    ),
    "without a group Fovea has an instance for each core; in a group without a count one, where Triton has two": (
        "instance_group[0].count",
    ),
}
"""What may differ in a config, where the file leaves it open."""

INPUTS: dict[str, dict[str, np.ndarray[Any, Any]]] = {
    "cifar10": {"pixels": np.stack([PIXELS, 255 - PIXELS])},
    "simple": {
        "INPUT0": np.arange(32, dtype=np.int32).reshape(2, 16),
        "INPUT1": np.full((2, 16), 2**31 - 20, np.int32),
    },
    "identity_fp16": {"INPUT0": np.array([[0.1, -65504, 6e-8]], np.float16)},
    "identity_bytes": {"INPUT0": np.array([[b"lynx"], [b""], ["пума".encode()]], np.object_)},
    "unbatched": {"INPUT0": np.array([[1e-45, 1e38, 0.1], [-0.0, np.inf, -np.inf]], np.float32)},
    "datatypes": {
        f"IN_{datatype}": np.array([b"\x00", b"puma"], np.object_)
        if datatype == "BYTES"
        else np.array([0, 1]).astype(triton_to_np_dtype(datatype))
        for datatype in models.DATATYPES
        if datatype != "FP16"
    },
    "classifier": {"SCORES": np.array([[0.1, -7.25, 1e9, 3], [0, 0, 0, 1 / 3]], np.float32)},
    "lookup": {"INDEX": np.array([[2], [0]], np.int64)},
    "latest": {"SCORES": np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)},
    "chosen": {"SCORES": np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)},
    "bare": {"INPUT0": np.array([[[0.5, 1, 2]], [[3, 4, 5]]], np.float32)},
    "bare_unbatched": {"INPUT0": np.array([[0.5, 1, 2], [3, 4, 5]], np.float32)},
    "terse": {"INPUT0": np.array([[0.5, 1]], np.float32)},
    "rich": {"INPUT0": np.array([[0.5, 1]], np.float32)},
    "odd_labels": {"SCORES": np.array([[0.1, 0.4, 0.3, 0.2]], np.float32)},
}
CLASSIFIED = {
    "cifar10": "logits",
    "classifier": "LOGITS",
    "odd_labels": "LOGITS",
    "lookup": "ENTRY",
    "unbatched": "OUTPUT0",
}

RICH = """
parameters { key: "colour" value { string_value: "RGB" } }
optimization { graph { level: 1 } input_pinned_memory { enable: false } }
metric_tags { key: "team" value: "vision" }
model_warmup {
  name: "zeros" batch_size: 1 inputs { key: "INPUT0" value { data_type: TYPE_FP32 dims: 2 zero_data: true } }
}
response_cache { enable: true }
dynamic_batching {
  preferred_batch_size: [ 4 ]
  max_queue_delay_microseconds: 100
  priority_levels: 3
  default_priority_level: 2
  default_queue_policy { max_queue_size: 9 allow_timeout_override: true default_timeout_microseconds: 50000000 }
  priority_queue_policy { key: 1 value { max_queue_size: 3 timeout_action: DELAY } }
}
"""
"""A config with what Triton has words for; some of it without effect in Fovea."""

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


def write_repository(repository: Path) -> None:
    shutil.copytree(CIFAR10, repository / "cifar10")
    (repository / "README.md").write_text("A file among models.\n")
    models.write_simple(repository)
    models.write_identity(repository, "identity_fp16", "FP16", (-1,))
    models.write_identity(repository, "identity_bytes", "BYTES", (1,))
    models.write_identity(repository, "unbatched", "FP32", (2, 3), max_batch_size=0, extra="")
    models.write_datatypes(repository)
    models.write_classifier(repository)
    models.write_lookup(repository)
    write_factors(repository, "latest", (1, 2, 10), "version_policy { latest { num_versions: 2 } }")
    write_factors(repository, "chosen", (1, 2, 3), "version_policy { specific { versions: [ 1, 3 ] } }")
    models.write_identity(repository, "bare", "FP32", (-1, 3))
    (repository / "bare" / "config.pbtxt").unlink()
    models.write_identity(repository, "bare_unbatched", "FP32", (2, 3), max_batch_size=0, extra="")
    (repository / "bare_unbatched" / "config.pbtxt").unlink()
    models.write_identity(repository, "terse", "FP32", (2,))
    (repository / "terse" / "config.pbtxt").write_text("max_batch_size: 6\n")
    models.write_identity(repository, "rich", "FP32", (2,), extra=RICH)
    rich = repository / "rich" / "config.pbtxt"
    text = rich.read_text().replace('backend: "onnxruntime"', 'platform: "onnxruntime_onnx"')
    rich.write_text(text.replace("count: 1 ", ""))
    write_factors(repository, "odd_labels", (1,), "instance_group { count: 2 kind: KIND_CPU }", labels=True)
    (repository / "odd_labels" / "labels.txt").write_text("deep red\n\n青\n")
    write_broken(repository)


def write_factors(repository: Path, name: str, versions: tuple[int, ...], extra: str, *, labels: bool = False) -> None:
    """Four scores, times the version's number."""
    graphs = {
        version: (
            [helper.make_node("Mul", ["SCORES", "factor"], ["LOGITS"])],
            [helper.make_tensor("factor", TensorProto.FLOAT, [], [float(version)])],
        )
        for version in versions
    }
    inputs, outputs = [models.Value("SCORES", "FP32", (4,))], [models.Value("LOGITS", "FP32", (4,), labels=labels)]
    models.write_model(repository, name, inputs, outputs, graphs, extra=extra)


def write_broken(repository: Path) -> None:
    for name in ("broken_config", "broken_graph", "wrong_name", "no_labels", "no_versions"):
        models.write_identity(repository, name, "FP32", (2,))
    (repository / "broken_config" / "config.pbtxt").write_text("max_batch_size: many\n")
    (repository / "broken_graph" / "1" / "model.onnx").write_bytes(b"no graph")
    for name, old, new in [
        ("wrong_name", "wrong_name", "another"),
        ("no_labels", 'name: "OUTPUT0"', 'name: "OUTPUT0" label_filename: "labels.txt"'),
    ]:
        config = repository / name / "config.pbtxt"
        config.write_text(config.read_text().replace(old, new))
    shutil.rmtree(repository / "no_versions" / "1")
    write_factors(repository, "half_copied", (1,), "")
    (repository / "half_copied" / "2").mkdir()
    write_factors(repository, "one_broken", (1, 2), "version_policy { all { } }")
    (repository / "one_broken" / "2" / "model.onnx").write_bytes(b"no graph")
    write_factors(repository, "missing_version", (1,), "version_policy { specific { versions: [ 1, 9 ] } }")


def digests(repository: Path) -> dict[str, str]:
    return {
        str(path.relative_to(repository)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in repository.rglob("*")
        if path.is_file()
    }


@dataclass(frozen=True)
class Pair:
    """Two servers of one folder, and what stood for its files before they started."""

    repository: Path
    digests: dict[str, str]
    fovea: launch.RunningService
    triton: triton_launch.RunningTriton


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    if reason := install.missing():
        pytest.skip(reason)
    repository = tmp_path_factory.mktemp("same_repository")
    write_repository(repository)
    before = digests(repository)
    # As Fovea does: what can be served is served, whatever else there is.
    options = ["--exit-on-error=false", "--strict-readiness=false"]
    with triton_launch.running(repository, options=options) as triton, launch.running(repository) as fovea:
        yield Pair(repository, before, fovea, triton)


@dataclass(frozen=True)
class Clients:
    library: Any
    fovea: Any
    triton: Any

    def both(self, method: str, *arguments: object, **options: object) -> tuple[Any, Any]:
        """What the two servers answer to one call."""
        fovea, triton = (getattr(client, method)(*arguments, **options) for client in (self.fovea, self.triton))
        return fovea, triton


@pytest.fixture(scope="module", params=["http", "grpc"])
def clients(pair: Pair, request: pytest.FixtureRequest) -> Iterator[Clients]:
    library = {"http": tritonclient.http, "grpc": tritonclient.grpc}[request.param]
    addresses = (getattr(server, request.param).removeprefix("http://") for server in (pair.fovea, pair.triton))
    with ExitStack() as stack:
        yield Clients(library, *(stack.enter_context(library.InferenceServerClient(each)) for each in addresses))


def plain(answer: Any) -> Any:
    return MessageToDict(answer, preserving_proto_field_name=True) if isinstance(answer, Message) else answer


def index(answer: Any) -> set[tuple[str, str, str]]:
    models = plain(answer)["models"] if isinstance(answer, Message) else answer
    return {(model["name"], model.get("version", ""), model.get("state", "")) for model in models}


def ready(clients: Clients) -> list[tuple[str, str]]:
    """The versions that both serve."""
    fovea, triton = map(index, clients.both("get_model_repository_index"))
    return sorted((name, version) for name, version, state in fovea & triton if state == "READY")


def test_the_index(clients: Clients) -> None:
    fovea, triton = map(index, clients.both("get_model_repository_index"))
    assert {name for name, *_ in fovea ^ triton} == INDEX_DIFFERS.keys()
    served = {name for name, _ in ready(clients)}
    assert served >= INPUTS.keys()
    assert {("latest", "2"), ("latest", "10"), ("chosen", "1"), ("chosen", "3")} <= {*ready(clients)}
    unavailable = {(name, "1", "UNAVAILABLE") for name in ("broken_graph", "no_labels")}
    assert unavailable <= fovea & triton


def test_the_metadata(clients: Clients) -> None:
    for name, version in [*ready(clients), *((name, "") for name in INPUTS)]:
        fovea, triton = map(plain, clients.both("get_model_metadata", name, version))
        assert fovea == triton


def config(answer: Any) -> Any:
    """As a message would have it: JSON tells what is as it is by default, too."""
    return plain(ParseDict(answer, ModelConfig()) if isinstance(answer, dict) else answer.config)


def paths(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each field that is set, by the way to it; a message is there even if it is empty."""
    if isinstance(value, list):
        for number, each in enumerate(value):
            yield from paths(each, f"{path}[{number}]")
    elif isinstance(value, dict):
        yield path, "a message"
        for name, each in value.items():
            yield from paths(each, f"{path}.{name}".lstrip("."))
    else:
        yield path, value


def test_the_configs(pair: Pair, clients: Clients) -> None:
    differing = set()
    for name, version in ready(clients):
        fovea, triton = (dict(paths(config(answer))) for answer in clients.both("get_model_config", name, version))
        file = pair.repository / name / "config.pbtxt"
        written = text_format.Parse(file.read_text() if file.exists() else "", ModelConfig())
        here = {path for path in fovea.keys() | triton.keys() if fovea.get(path) != triton.get(path)}
        assert not here & dict(paths(plain(written))).keys(), (name, here)
        differing |= here
    assert differing == {path for paths in CONFIG_DIFFERS.values() for path in paths}


def same(fovea: Any, triton: Any) -> None:
    """The same outputs, of the same name, datatype and shape, with values within 1e-5."""
    descriptions = [plain(answer.get_response()) for answer in (fovea, triton)]
    for description in descriptions:
        description.pop("raw_output_contents", None)
        for output in description["outputs"]:
            output.pop("data", None)
    assert descriptions[0] == descriptions[1]
    for output in descriptions[0]["outputs"]:
        values, wanted = (answer.as_numpy(output["name"]) for answer in (fovea, triton))
        assert (values.dtype, values.shape) == (wanted.dtype, wanted.shape)
        if values.dtype.kind == "f":
            np.testing.assert_allclose(values, wanted, rtol=1e-5)
        else:
            np.testing.assert_array_equal(values, wanted)


def tensors(library: Any, model: str) -> list[Any]:
    inputs = []
    for name, array in INPUTS[model].items():
        inputs.append(library.InferInput(name, array.shape, np_to_triton_dtype(array.dtype)))
        inputs[-1].set_data_from_numpy(array)
    return inputs


@pytest.mark.parametrize("model", INPUTS)
def test_the_answers(clients: Clients, model: str) -> None:
    inputs = tensors(clients.library, model)
    for version in ["", *(version for name, version in ready(clients) if name == model)]:
        same(*clients.both("infer", model, inputs, model_version=version, request_id="7"))


@pytest.mark.parametrize("model", CLASSIFIED)
def test_the_classes(clients: Clients, model: str) -> None:
    output = clients.library.InferRequestedOutput(CLASSIFIED[model], class_count=3)
    answers = clients.both("infer", model, tensors(clients.library, model), outputs=[output])
    fovea, triton = (answer.as_numpy(CLASSIFIED[model]) for answer in answers)
    assert fovea.shape == triton.shape
    for mine, theirs in zip(fovea.ravel(), triton.ravel(), strict=True):
        (value, *label), (wanted, *its_label) = (each.decode().split(":") for each in (mine, theirs))
        assert label == its_label
        assert float(value) == pytest.approx(float(wanted), rel=1e-5)


def test_the_files_are_as_they_were(pair: Pair) -> None:
    assert digests(pair.repository) == pair.digests
    assert digests(pair.repository / "cifar10") == digests(CIFAR10)
