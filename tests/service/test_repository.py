from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import service.repository
from service.backends.instance import Instance
from service.backends.onnx_runtime import OnnxRuntimeEngine, available_cores
from service.batching import BatchRecord
from service.catalogue import State
from service.errors import FoveaError, InvalidInputError, NotFoundError, StartError, UnavailableError
from service.image_contract import ImageContract
from service.loading import OpenedVersion, open_version
from service.repository import Repository
from service.tensors import Tensors
from tests.repositories import LABELS, graph, write_model
from tests.service.conftest import ONE_INSTANCE, change_golden

Load = Callable[..., Any]


@pytest.fixture
async def load(tmp_path: Path) -> AsyncIterator[Load]:
    """Loads the folder of models; what was loaded is closed at the end."""
    loaded: list[Repository] = []

    async def load(**options: Any) -> Repository:
        repository = open_repository(tmp_path, **options)
        loaded.append(repository)
        await repository.start()
        return repository

    yield load
    for repository in loaded:
        await repository.close()


def open_repository(folder: Path, **options: Any) -> Repository:
    engine = OnnxRuntimeEngine(options.pop("execution_provider", "cpu"), device_id=0)
    given: dict[str, Any] = {
        "max_queue_size": 100,
        "default_model": None,
        "on_batch": lambda model, version, record: None,
    }
    return Repository(folder, engine, **(given | options))


def pixels(value: object) -> Tensors:
    """One row of the tiny model's input."""
    return (np.full((1, 8, 8, 3), value, np.uint8),)


async def test_a_model_is_loaded_proven_and_answers(tmp_path: Path, load: Load) -> None:
    batches: list[tuple[str, str, BatchRecord]] = []
    write_model(tmp_path, extra=ONE_INSTANCE)
    repository = await load(on_batch=lambda *batch: batches.append(batch))
    served = repository.catalogue.resolve("colours", "1")
    assert (served.name, served.version, served.proven, len(served.instances)) == ("colours", "1", True, 1)
    assert served.execution_provider == "CPUExecutionProvider"
    assert isinstance(served.images, ImageContract)
    assert served.images.labels == LABELS
    completed = await served.batcher.submit(pixels((255, 0, 51)))
    np.testing.assert_allclose(completed.result[0], [(10, 0, 2)], atol=1e-5)
    assert [(model, version, record.batch_size) for model, version, record in batches] == [("colours", "1", 1)]
    assert repository.catalogue.problems() == []


async def test_one_session_for_each_core_unless_the_config_says_otherwise(tmp_path: Path, load: Load) -> None:
    write_model(tmp_path, "default")
    write_model(tmp_path, "three", extra="instance_group [ { count: 3 } ]")
    repository = await load()
    assert len(repository.catalogue.resolve("default", "").instances) == available_cores()
    assert len(repository.catalogue.resolve("three", "").instances) == 3


async def test_the_highest_ready_version_answers(tmp_path: Path, load: Load) -> None:
    model = write_model(tmp_path, versions=(2, 9, 10), extra="version_policy { all { } }")
    change_golden(model / "10", logits=lambda logits: -logits)
    repository = await load()
    assert repository.catalogue.resolve("colours", "").version == "9"
    assert repository.catalogue.resolve("colours", "2").version == "2"
    with pytest.raises(UnavailableError, match="'colours' is not ready: golden sample"):
        repository.catalogue.resolve("colours", "10")


async def test_the_only_model_is_the_default(tmp_path: Path, load: Load) -> None:
    write_model(tmp_path)
    assert (await load()).catalogue.resolve("", "").name == "colours"


async def test_a_model_that_comes_makes_the_only_one_no_default(tmp_path: Path, load: Load) -> None:
    first = write_model(tmp_path, "a")
    repository = await load()
    write_model(tmp_path, "b")
    await repository.poll()
    with pytest.raises(InvalidInputError, match="no model named: must be one of a, b"):
        repository.catalogue.resolve("", "")
    shutil.rmtree(first)
    await repository.poll()
    assert repository.catalogue.resolve("", "").name == "b"


async def test_a_model_of_features_is_not_meant_by_who_wants_classes_whether_it_is_loaded_or_not(
    tmp_path: Path, load: Load
) -> None:
    write_model(tmp_path)
    write_model(tmp_path, "features", features=True)
    repository = await load()
    assert repository.catalogue.resolve("", "").name == "colours"
    await repository.unload("features")
    assert repository.catalogue.resolve("", "").name == "colours"
    with pytest.raises(NotFoundError, match="'features' has no available versions"):
        repository.catalogue.resolve("", "", features=True)


async def test_several_models_and_no_default(tmp_path: Path, load: Load) -> None:
    write_model(tmp_path, "a")
    write_model(tmp_path, "b")
    with pytest.raises(InvalidInputError, match="no model named: must be one of a, b"):
        (await load()).catalogue.resolve("", "")
    assert (await load(default_model="b")).catalogue.resolve("", "").name == "b"


async def test_what_is_not_there(tmp_path: Path, load: Load) -> None:
    write_model(tmp_path)
    repository = await load()
    with pytest.raises(NotFoundError, match=r"^Request for unknown model: 'x' is not found"):
        repository.catalogue.resolve("x", "")
    with pytest.raises(NotFoundError, match=r"^Request for unknown model: 'colours' version 7 is not found$"):
        repository.catalogue.resolve("colours", "7")
    with pytest.raises(NotFoundError):
        repository.catalogue.find("../colours")


async def test_before_it_is_loaded_a_model_is_unavailable(tmp_path: Path) -> None:
    write_model(tmp_path)
    repository = open_repository(tmp_path)
    with pytest.raises(UnavailableError, match="'colours' is not ready: loading"):
        repository.catalogue.resolve("colours", "")


def break_labels(model: Path) -> None:
    (model / "labels.txt").write_text("red\n")


def break_graph(model: Path) -> None:
    (model / "1" / "model.onnx").write_bytes(b"not a graph")


def answer_with_nan(model: Path) -> None:
    onnx.save(graph(8, scale=float("nan")), model / "1" / "model.onnx")


def rename_output(model: Path) -> None:
    config = model / "config.pbtxt"
    config.write_text(config.read_text().replace('"logits"', '"scores"'))


def want_another_size(model: Path) -> None:
    onnx.save(graph(16), model / "1" / "model.onnx")


def want_more_classes(model: Path) -> None:
    config = model / "config.pbtxt"
    config.write_text(config.read_text().replace("dims: [ 3 ]", "dims: [ 4 ]"))
    (model / "labels.txt").write_text("a\nb\nc\nd\n")


def name_a_missing_version(model: Path) -> None:
    with (model / "config.pbtxt").open("a") as config:
        config.write("version_policy { specific { versions: [ 5 ] } }")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda model: (model / "config.pbtxt").write_text("{"), "config.pbtxt: "),
        (break_labels, "labels.txt: 1 labels for 3 classes"),
        (break_graph, "ONNX Runtime cannot load model.onnx"),
        (lambda model: (model / "1" / "model.onnx").unlink(), "no version folder"),
        (lambda model: (model / "1").rename(model / "one"), "no version folder"),
        (lambda model: change_golden(model / "1", pixels=lambda pixels: 255 - pixels), "preprocessing differs"),
        (lambda model: change_golden(model / "1", logits=lambda logits: logits + 1), "logits differ by"),
        (answer_with_nan, "logits of a black image are not finite"),
        (rename_output, "output 'scores' is not in the graph, which has logits"),
        (want_another_size, r"input 'pixels' has dims \[8, 8, 3\].*; in the graph they are \[-1, 16, 16, 3\]"),
        (want_more_classes, r"output 'logits' has dims \[4\].*; in the graph they are \[-1, 3\]"),
        (name_a_missing_version, "version_policy names version 5"),
        (lambda model: (model / "1" / "golden.jpg").unlink(), "golden sample: cannot be read"),
        (lambda model: (model / "1" / "golden.npz").write_bytes(b""), "golden sample: cannot be read"),
    ],
)
async def test_a_broken_model_says_why_and_leaves_the_others_alone(
    tmp_path: Path, load: Load, damage: Callable[[Path], object], reason: str
) -> None:
    write_model(tmp_path, "good")
    damage(write_model(tmp_path, "bad"))
    repository = await load()
    (problem,) = repository.catalogue.problems()
    assert problem.startswith("bad")
    with pytest.raises(UnavailableError, match=f"model 'bad' is not ready: .*{reason}"):
        repository.catalogue.resolve("bad", "")
    assert repository.catalogue.resolve("good", "").proven
    assert [served.name for served in repository.catalogue.served()] == ["good"]


async def test_states(tmp_path: Path, load: Load) -> None:
    model = write_model(tmp_path, versions=(1, 2), extra="version_policy { all { } }")
    (model / "1" / "model.onnx").write_bytes(b"")
    entry = (await load()).catalogue.find("colours")
    assert [(v.version, v.state) for v in entry.versions.values()] == [("1", State.UNAVAILABLE), ("2", State.READY)]
    assert "model.onnx" in entry.versions["1"].reason


async def test_a_model_without_a_sample_is_served_and_not_proven(tmp_path: Path, load: Load) -> None:
    write_model(tmp_path, golden=False)
    assert (await load()).catalogue.resolve("", "").proven is False


async def test_logits_that_are_not_numbers_are_noticed_without_a_sample(tmp_path: Path, load: Load) -> None:
    answer_with_nan(write_model(tmp_path, golden=False))
    with pytest.raises(UnavailableError, match="logits of a black image are not finite"):
        (await load()).catalogue.resolve("", "")


async def test_the_output_that_the_config_names_is_the_one_that_answers(tmp_path: Path, load: Load) -> None:
    """A graph with a second output, before the logits."""
    model = write_model(tmp_path, golden=False)
    path = model / "1" / "model.onnx"
    two_outputs = onnx.load(path)
    other = onnx.helper.make_tensor_value_info("means", onnx.TensorProto.FLOAT, ["N", 3])
    two_outputs.graph.output.insert(0, other)
    onnx.save(two_outputs, path)
    completed = await (await load()).catalogue.resolve("", "").batcher.submit(pixels(255))
    np.testing.assert_allclose(completed.result[0], [(10, 10, 10)], atol=1e-5)


async def test_hidden_folders_and_files_are_no_models(tmp_path: Path, load: Load) -> None:
    write_model(tmp_path)
    write_model(tmp_path, ".colours.partial")
    (tmp_path / "README.md").write_text("models")
    assert list((await load()).models) == ["colours"]


async def test_a_models_own_queue_size_counts(tmp_path: Path, load: Load) -> None:
    write_model(tmp_path, extra="dynamic_batching { default_queue_policy { max_queue_size: 1 } }")
    batcher = (await load()).catalogue.resolve("", "").batcher
    outcomes = await asyncio.gather(*[batcher.submit(pixels(0)) for _ in range(50)], return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, UnavailableError)]
    assert refused
    assert "maximum queue size: 1 " in str(refused[0])


@pytest.mark.parametrize("make", [None, lambda folder: folder.mkdir(), lambda folder: folder.write_text("")])
def test_no_models_is_no_start(tmp_path: Path, make: Callable[[Path], object] | None) -> None:
    folder = tmp_path / "repository"
    if make:
        make(folder)
    with pytest.raises(StartError, match=f"FOVEA_MODEL_REPOSITORY={folder}: "):
        open_repository(folder)


def test_a_default_model_that_is_not_there(tmp_path: Path) -> None:
    write_model(tmp_path)
    with pytest.raises(StartError, match=r"FOVEA_DEFAULT_MODEL=cats: .* holds colours"):
        open_repository(tmp_path, default_model="cats")


def test_cuda_is_not_replaced_by_the_cpu(tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    write_model(tmp_path)
    with pytest.raises(
        StartError, match=r"FOVEA_EXECUTION_PROVIDER=cuda: this onnxruntime has .*CPUExecutionProvider only"
    ):
        open_repository(tmp_path, execution_provider="cuda")


def publish(model: Path, version: str) -> None:
    shutil.copytree(model / "1", model / version)


async def test_a_broken_new_version_leaves_the_one_before_it_in_service(tmp_path: Path, load: Load) -> None:
    model = write_model(tmp_path)
    repository = await load()
    publish(model, "2")
    (model / "2" / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(InvalidInputError, match="version 2 is at UNAVAILABLE state: ONNX Runtime cannot load"):
        await repository.load("colours")
    assert repository.catalogue.resolve("colours", "").version == "1"
    states = {entry.version: entry.state for entry in repository.catalogue.find("colours").versions.values()}
    assert states == {"1": State.READY, "2": State.UNAVAILABLE}
    shutil.copy(model / "1" / "model.onnx", model / "2" / "model.onnx")
    await repository.load("colours")
    assert repository.catalogue.ready_versions("colours") == ["2"]


async def test_the_highest_version_answers_while_others_are_being_loaded(tmp_path: Path, load: Load) -> None:
    model = write_model(tmp_path, versions=(9,), extra="version_policy { all { } }")
    repository = await load()
    shutil.copytree(model / "9", model / "10")
    shutil.copytree(model / "9", model / "2")
    await repository.load("colours")
    assert repository.catalogue.ready_versions("colours") == ["2", "9", "10"]
    assert repository.catalogue.resolve("colours", "").version == "10"


async def test_no_other_version_stands_in_for_a_pinned_one_while_they_are_being_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = 'version_policy { all { } } parameters { key: "rollout.current" value { string_value: "2" } }'
    write_model(tmp_path, versions=(1, 2, 3), extra=pinned)
    repository = open_repository(tmp_path)
    loop = asyncio.get_running_loop()
    answering: dict[str, str] = {}

    async def ask() -> str:
        try:
            return repository.catalogue.next("", "").served.version
        except UnavailableError as error:
            return str(error)

    def watched(folder: Path, version: str, *arguments: Any) -> OpenedVersion:
        answering[version] = asyncio.run_coroutine_threadsafe(ask(), loop).result(60)
        return open_version(folder, version, *arguments)

    monkeypatch.setattr(service.repository, "open_version", watched)
    try:
        await repository.start()
    finally:
        await repository.close()
    assert answering == {"2": "model 'colours' is not ready: loading", "1": "2", "3": "2"}
    assert [*repository.catalogue.find("colours").versions] == ["1", "2", "3"]


async def test_releasing_sessions_holds_nobody_up(tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of Triton's shared memory does, where Triton hangs."""
    write_model(tmp_path)
    repository = await load()
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    in_time: list[bool] = []

    def slow(_: Instance) -> None:
        loop.call_soon_threadsafe(begun.set)
        in_time.append(go_on.wait(30))

    monkeypatch.setattr(Instance, "close", slow)
    await repository.unload("colours")
    await begun.wait()
    go_on.set()
    await repository.close()
    assert in_time
    assert all(in_time)


async def test_hidden_files_are_nothing_new(tmp_path: Path, load: Load) -> None:
    model = write_model(tmp_path)
    repository = await load()
    served = repository.catalogue.resolve("colours", "")
    (model / ".config.pbtxt.swp").write_text("an editor's")
    await repository.poll()
    assert repository.catalogue.resolve("colours", "") is served
    (model / "labels.txt").touch()
    await repository.poll()
    assert repository.catalogue.resolve("colours", "") is not served


async def test_what_failed_is_tried_again_when_asked_and_not_by_polling(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path)
    tries: list[str] = []

    def out_of_memory(folder: Path, version: str, *_: object) -> OpenedVersion:
        tries.append(version)
        raise RuntimeError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(service.repository, "open_version", out_of_memory)
        repository = await load()
        assert repository.blocking() == ["colours version 1: RuntimeError: CUDA out of memory"]
        await repository.poll()
        await repository.poll()
        assert len(tries) == 1
        with pytest.raises(InvalidInputError, match="RuntimeError: CUDA out of memory"):
            await repository.load("colours")
        assert len(tries) == 2
    await repository.load("colours")
    assert repository.catalogue.resolve("colours", "").version == "1"
    assert repository.blocking() == []


async def cancel_load(repository: Repository, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin to load a model, and cancel that while its version is being opened."""
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(*arguments: Any) -> OpenedVersion:
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(60)
        version = open_version(*arguments)
        opened.extend(version.instances)
        return version

    def noted(instance: Instance) -> None:
        closed.append(instance)
        close(instance)

    close = Instance.close
    opened: list[Instance] = []
    closed: list[Instance] = []
    with monkeypatch.context() as patch:
        patch.setattr(service.repository, "open_version", slow)
        patch.setattr(Instance, "close", noted)
        loading = asyncio.create_task(repository.load(name))
        await begun.wait()
        loading.cancel()
        # What a thread opens nevertheless is waited for, and closed.
        done, _ = await asyncio.wait({loading}, timeout=0)
        assert not done
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await loading
    assert all(instance in closed for instance in opened)


async def test_a_load_that_was_cancelled_leaves_no_trace(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path)
    repository = await load()
    model = write_model(tmp_path, "late")
    await cancel_load(repository, "late", monkeypatch)
    assert repository.catalogue.find("late").versions == {}
    await repository.load("late")
    assert repository.catalogue.resolve("late", "").config.name == model.name


async def test_a_load_that_was_cancelled_leaves_the_reasons_why_a_service_is_not_ready(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_graph(write_model(tmp_path, "graph"))
    config = write_model(tmp_path, "config") / "config.pbtxt"
    good = config.read_text()
    config.write_text("no config")
    repository = await load()
    config.write_text(good)
    before = repository.blocking()
    assert [problem.split(":")[0] for problem in before] == ["config", "graph version 1"]
    for name in ("graph", "config"):
        await cancel_load(repository, name, monkeypatch)
        assert repository.blocking() == before
    await repository.load("config")
    assert repository.blocking() == before[1:]


async def test_a_load_that_was_cancelled_leaves_a_model_that_nobody_wanted_unknown(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path)
    repository = await load()
    await repository.unload("colours")
    await cancel_load(repository, "colours", monkeypatch)
    with pytest.raises(NotFoundError, match="'colours' has no available versions"):
        repository.catalogue.resolve("colours", "")
    await repository.load("colours")
    assert repository.catalogue.resolve("colours", "").version == "1"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda model: (model / "config.pbtxt").write_text("input { name: 'pixels' data_type: 99 }"), "99"),
        (lambda model: shutil.rmtree(model), "FileNotFoundError|failed to poll"),
        (
            lambda model: (model / "config.pbtxt").write_text("max_batch_size: 8 output { name: 'logits' dims: [] }"),
            "logits",
        ),
    ],
)
async def test_whatever_is_wrong_with_a_model_is_its_reason(
    tmp_path: Path, load: Load, damage: Callable[[Path], object], reason: str
) -> None:
    model = write_model(tmp_path)
    write_model(tmp_path, "other")
    repository = await load(default_model="other")
    damage(model)
    with pytest.raises(FoveaError, match=reason):
        await repository.load("colours")
    await repository.poll()
    assert repository.catalogue.resolve("other", "").name == "other"


async def test_polling_goes_on_when_the_last_model_is_gone(tmp_path: Path, load: Load) -> None:
    model = write_model(tmp_path)
    repository = await load()
    shutil.rmtree(model)
    await repository.poll()
    assert repository.models == {}
    write_model(tmp_path)
    await repository.poll()
    assert repository.catalogue.resolve("colours", "").version == "1"


async def test_files_of_a_request_make_a_model_for_as_long_as_it_is_loaded(tmp_path: Path, load: Load) -> None:
    model = write_model(tmp_path, golden=False)
    repository = await load()
    files = {"3/model.onnx": (model / "1" / "model.onnx").read_bytes()}
    first = asyncio.create_task(repository.load("sent", override="{}", files=files))
    after = [asyncio.create_task(repository.unload("sent")) for _ in range(2)]
    last = asyncio.create_task(repository.load("sent", override="{}", files=files))
    await asyncio.gather(first, *after, last)
    assert repository.catalogue.resolve("sent", "").version == "3"
    await repository.unload("sent")
    assert "sent" not in repository.models


@pytest.mark.parametrize("name", ["", ".", "..", "../colours", "a/b", ".hidden", "x" * 300, "é" * 150, "a\0b"])
async def test_names_that_are_no_folders_leave_no_trace(tmp_path: Path, load: Load, name: str) -> None:
    write_model(tmp_path)
    repository = await load()
    with pytest.raises(FoveaError):
        await repository.load(name)
    with pytest.raises(FoveaError):
        await repository.load(name, override="{}", files={"1/model.onnx": b""})
    await repository.unload(name)
    assert list(repository.models) == ["colours"]
    assert repository.catalogue.problems() == []


@pytest.mark.parametrize("path", ["../x", "/x", "1/../../x", "1//x", "1/\0", "", "1/" + "x" * 300, "1/" + "é" * 150])
async def test_files_stay_in_the_models_folder(tmp_path: Path, load: Load, path: str) -> None:
    write_model(tmp_path)
    repository = await load()
    with pytest.raises(InvalidInputError, match="is not a path in the model's folder"):
        await repository.load("sent", override="{}", files={path: b""})
    assert "sent" not in repository.models


async def test_one_file_in_the_place_of_a_folder(tmp_path: Path, load: Load) -> None:
    write_model(tmp_path)
    repository = await load()
    with pytest.raises(InvalidInputError, match=r"failed to load 'sent': 1/model\.onnx: "):
        await repository.load("sent", override="{}", files={"1": b"", "1/model.onnx": b""})
    assert "sent" not in repository.models


def test_a_model_to_be_loaded_that_is_not_there(tmp_path: Path) -> None:
    write_model(tmp_path)
    with pytest.raises(StartError, match=r"FOVEA_LOAD_MODELS names cats: .* holds colours"):
        open_repository(tmp_path, wanted=["cats"])


async def test_what_is_as_it_was_needs_no_loading(tmp_path: Path, load: Load) -> None:
    model = write_model(tmp_path)
    repository = await load()
    served = repository.catalogue.resolve("colours", "")
    graph_before = model / "1" / "model.onnx"
    shutil.copy2(graph_before, tmp_path / ".before")
    graph_before.write_bytes(b"not a graph")
    for _ in range(2):
        with pytest.raises(InvalidInputError, match="ONNX Runtime cannot load"):
            await repository.load("colours")
    shutil.copy2(tmp_path / ".before", graph_before)
    await repository.load("colours")
    assert repository.catalogue.resolve("colours", "") is served


async def test_a_model_that_blocked_and_is_gone_blocks_no_more(tmp_path: Path, load: Load) -> None:
    write_model(tmp_path)
    break_graph(broken := write_model(tmp_path, "broken"))
    repository = await load()
    assert len(repository.blocking()) == 1
    shutil.rmtree(broken)
    await repository.poll()
    assert repository.blocking() == []


async def test_a_folder_with_a_leading_zero_is_no_version(tmp_path: Path, load: Load) -> None:
    model = write_model(tmp_path)
    shutil.copytree(model / "1", model / "02")
    repository = await load()
    assert repository.catalogue.problems() == []
    assert repository.catalogue.resolve("", "").version == "1"


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ("instance_group { kind: KIND_GPU }", "kind KIND_GPU, but FOVEA_EXECUTION_PROVIDER is cpu"),
        ("instance_group { kind: KIND_MODEL }", "kind KIND_MODEL: must be KIND_AUTO, KIND_CPU or KIND_GPU"),
        ("instance_group { kind: KIND_CPU gpus: [ 0 ] }", "kind KIND_CPU names gpus"),
        ("instance_group { count: 2000000000 }", "has 2000000000 instances: must be at most 256"),
        (
            "optimization { execution_accelerators { cpu_execution_accelerator { name: 'none_such' } } }",
            "execution accelerator 'none_such': this onnxruntime has .*CPUExecutionProvider only",
        ),
    ],
)
async def test_where_instances_cannot_run(tmp_path: Path, load: Load, extra: str, reason: str) -> None:
    write_model(tmp_path, extra=extra)
    with pytest.raises(UnavailableError, match=reason):
        (await load()).catalogue.resolve("", "")


async def test_a_batch_that_no_memory_holds_is_refused(tmp_path: Path, load: Load) -> None:
    write_model(tmp_path, max_batch_size=2**31 - 1)
    with pytest.raises(UnavailableError, match="a batch of 2147483647 takes"):
        (await load()).catalogue.resolve("", "")


async def test_instances_of_any_kind_follow_the_setting(tmp_path: Path, load: Load) -> None:
    write_model(tmp_path, extra="instance_group [ { kind: KIND_AUTO count: 2 }, { kind: KIND_CPU } ]")
    served = (await load()).catalogue.resolve("", "")
    assert [instance.provider for instance in served.instances] == ["CPUExecutionProvider"] * 3
    shown = [(group.name, group.count) for group in served.config.proto.instance_group]
    assert shown == [("colours_0", 2), ("colours_1", 1)]


async def test_requests_share_no_larger_batch_than_an_instance_runs_at_once(tmp_path: Path, load: Load) -> None:
    """What would be run in parts on a CPU waits in the queue instead. A request that is larger is not cut up."""
    write_model(tmp_path, max_batch_size=64, extra=ONE_INSTANCE)
    sizes: list[int] = []
    repository = await load(on_batch=lambda model, version, record: sizes.append(record.batch_size))
    batcher = repository.catalogue.resolve("colours", "").batcher
    await asyncio.gather(*(batcher.submit(pixels(1)) for _ in range(40)))
    assert sizes == [16, 16, 8]
    completed = await batcher.submit((np.zeros((40, 8, 8, 3), np.uint8),), rows=40)
    assert completed.batch.batch_size == 40
    assert completed.result[0].shape == (40, 3)
