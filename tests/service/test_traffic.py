"""Where requests go that name no version, with a real repository and no transport."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest

from service.backends.onnx_runtime import OnnxRuntimeEngine
from service.batching import DynamicBatcher
from service.errors import InvalidInputError, UnavailableError
from service.inference import run
from service.repository import Repository
from service.trial import MAX_COPIES, Answered, Compared, Dropped, Event, Failed, Sent, Side, TakenUp
from tests.repositories import graph, write_model
from tests.service.conftest import ONE_INSTANCE

ALL = f"{ONE_INSTANCE} version_policy {{ all {{ }} }}"
GREENISH = (np.full((1, 8, 8, 3), (100, 200, 0), np.uint8),)


def declare(model: Path, **parameters: str) -> None:
    """A rollout in a config, in place of the one that there is."""
    path = model / "config.pbtxt"
    text = path.read_text().partition("# rollout\n")[0] + "# rollout\n"
    for name, value in parameters.items():
        text += f'parameters {{ key: "rollout.{name}" value {{ string_value: "{value}" }} }}\n'
    path.write_text(text)


@dataclass
class Rolled:
    """A model of versions 1, 2 (says the same, less surely) and 3 (says another class), and what came of its trial."""

    model: Path
    repository: Repository
    events: list[Event] = field(default_factory=list)

    async def take_up(self, **parameters: str) -> None:
        declare(self.model, **parameters)
        await self.repository.poll()

    def chosen(self, requests: int) -> Counter[str]:
        return Counter(self.repository.catalogue.choose("colours", "").served.version for _ in range(requests))

    async def ask(self) -> None:
        served, part = self.repository.catalogue.choose("colours", "")
        with served:
            await run(served, GREENISH, 1, deadline=asyncio.get_running_loop().time() + 1e9, part=part)

    async def until(self, kind: type[Event], count: int = 1) -> list[Event]:
        async with asyncio.timeout(60):
            while len(found := [event for event in self.events if isinstance(event, kind)]) < count:  # noqa: ASYNC110
                await asyncio.sleep(0)
        return found


@asynccontextmanager
async def started(folder: Path, events: list[Event]) -> AsyncIterator[Repository]:
    """A repository whose models are all served, and which tells these of its rollouts' trials."""
    repository = Repository(
        folder,
        OnnxRuntimeEngine("cpu", device_id=0),
        max_queue_size=100,
        default_model=None,
        on_batch=lambda *_: None,
        on_trial=events.append,
    )
    await repository.start()
    assert repository.catalogue.problems() == []
    yield repository
    await repository.close()


@pytest.fixture
async def rolled(tmp_path: Path) -> AsyncIterator[Rolled]:
    model = write_model(tmp_path, versions=(1,), golden=False, extra=ALL)
    for version, scale in (("2", 5 / 255), ("3", -10 / 255)):
        (model / version).mkdir()
        onnx.save(graph(8, scale=scale), model / version / "model.onnx")
    declare(model, current="1")
    events: list[Event] = []
    async with started(tmp_path, events) as repository:
        yield Rolled(model, repository, events)


async def test_what_is_current_answers_and_any_other_by_its_number(rolled: Rolled) -> None:
    assert rolled.chosen(10) == {"1": 10}
    assert rolled.repository.catalogue.resolve("colours", "").version == "1"
    assert rolled.repository.catalogue.choose("colours", "3").served.version == "3"
    await rolled.take_up(current="2")
    assert rolled.repository.catalogue.resolve("", "").version == "2"
    await rolled.take_up()
    assert rolled.repository.catalogue.resolve("", "").version == "3"


async def test_a_canary_gets_exactly_its_share(rolled: Rolled) -> None:
    await rolled.take_up(current="1", canary="2", canary_share="0.1")
    assert rolled.chosen(5000) == {"1": 4500, "2": 500}
    for _ in range(7):
        rolled.repository.catalogue.choose("colours", "2")
        rolled.repository.catalogue.next("colours", "")
        assert rolled.repository.catalogue.resolve("colours", "").version == "1"
    assert rolled.chosen(10) == {"1": 9, "2": 1}
    sent = Counter(event.side.role for event in rolled.events if isinstance(event, Sent))
    assert sent == {"current": 4509, "canary": 501}
    assert Counter(rolled.chosen(10).keys()) == {"1": 1, "2": 1}


async def test_a_look_at_the_folder_leaves_the_count_as_it_was(rolled: Rolled) -> None:
    await rolled.take_up(current="1", canary="2", canary_share="0.1")
    assert rolled.chosen(9) == {"1": 9}
    await rolled.repository.poll()
    assert rolled.chosen(1) == {"2": 1}


async def test_no_session_is_opened_again_for_a_rollout(rolled: Rolled) -> None:
    before = rolled.repository.catalogue.served()
    await rolled.take_up(current="1", canary="2", canary_share="0.5")
    await rolled.take_up(current="2", previous="1")
    await rolled.repository.load("colours")
    assert all(a is b for a, b in zip(before, rolled.repository.catalogue.served(), strict=True))
    shown = rolled.repository.catalogue.resolve("colours", "").config.proto.parameters
    assert {name: value.string_value for name, value in shown.items()} == {
        "rollout.current": "2",
        "rollout.previous": "1",
    }


async def test_a_contradiction_leaves_all_as_it_was(rolled: Rolled, caplog: pytest.LogCaptureFixture) -> None:
    await rolled.take_up(current="1", canary="2", canary_share="0.5")
    for _ in range(2):
        await rolled.take_up(current="1", canary="7", canary_share="0.5")
    (problem,) = rolled.repository.catalogue.problems()
    assert problem.startswith("colours: config.pbtxt: rollout.canary is 7: must be one of the versions")
    assert caplog.text.count("colours: stays as it was: config.pbtxt: rollout.canary is 7") == 1
    assert rolled.repository.blocking() == []
    assert rolled.chosen(10) == {"1": 5, "2": 5}
    with pytest.raises(InvalidInputError, match=r"rollout\.canary is 7"):
        await rolled.repository.load("colours")
    await rolled.take_up(current="1")
    assert rolled.repository.catalogue.problems() == []


async def test_a_canary_that_is_not_ready_leaves_its_share(rolled: Rolled) -> None:
    (rolled.model / "4").mkdir()
    (rolled.model / "4" / "model.onnx").write_bytes(b"no graph")
    await rolled.take_up(current="1", canary="4", canary_share="0.5")
    assert rolled.chosen(10) == {"1": 10}
    (problem,) = rolled.repository.catalogue.problems()
    assert problem.startswith("colours version 4: ")
    onnx.save(graph(8), rolled.model / "4" / "model.onnx")
    await rolled.repository.poll()
    assert rolled.chosen(10) == {"1": 5, "4": 5}


async def test_a_version_that_cannot_be_loaded_does_not_become_current(rolled: Rolled) -> None:
    (rolled.model / "4").mkdir()
    (rolled.model / "4" / "model.onnx").write_bytes(b"no graph")
    await rolled.take_up(current="4", previous="1")
    assert rolled.chosen(10) == {"1": 10}
    onnx.save(graph(8), rolled.model / "4" / "model.onnx")
    await rolled.repository.poll()
    assert rolled.chosen(10) == {"4": 10}


async def test_at_the_start_nothing_else_stands_in_for_what_is_current(tmp_path: Path) -> None:
    model = write_model(tmp_path, versions=(1, 2), golden=False, extra=ALL)
    (model / "1" / "model.onnx").write_bytes(b"no graph")
    declare(model, current="1")
    repository = Repository(
        tmp_path,
        OnnxRuntimeEngine("cpu", device_id=0),
        max_queue_size=100,
        default_model=None,
        on_batch=lambda *_: None,
    )
    await repository.start()
    try:
        assert len(repository.blocking()) == 1
        with pytest.raises(UnavailableError, match="model 'colours' is not ready"):
            repository.catalogue.choose("colours", "")
        assert repository.catalogue.choose("colours", "2").served.version == "2"
    finally:
        await repository.close()


async def test_an_unloaded_model_has_no_rollout(rolled: Rolled) -> None:
    await rolled.take_up(current="1", canary="2", canary_share="0.5")
    await rolled.repository.unload("colours")
    assert rolled.events[-1] == TakenUp("colours", ())
    await rolled.repository.load("colours")
    assert rolled.chosen(10) == {"1": 5, "2": 5}


async def test_a_shadow_is_asked_the_same_and_compared(rolled: Rolled) -> None:
    await rolled.take_up(current="1", shadow="2", shadow_share="1")
    for number in range(1, 4):
        await rolled.ask()
        await rolled.until(Compared, number)
    await rolled.take_up(current="1", shadow="3", shadow_share="1")
    await rolled.ask()
    *same, other = await rolled.until(Compared, 4)
    logits = np.array([100, 200, 0]) * 10 / 255
    sure, less_sure = (np.exp(x.max()) / np.exp(x).sum() for x in (logits, logits / 2))
    for event in same:
        assert isinstance(event, Compared)
        assert (event.side.version, event.images, event.agreed) == ("2", 1, 1)
        assert event.current_confidence == pytest.approx(sure, rel=1e-4)
        assert event.confidence == pytest.approx(less_sure, rel=1e-4)
    assert isinstance(other, Compared)
    assert (other.side.version, other.agreed) == ("3", 0)
    answered = await rolled.until(Answered, 8)
    assert Counter(event.side.role for event in answered if isinstance(event, Answered)) == {"current": 4, "shadow": 4}
    assert rolled.repository.catalogue.resolve("colours", "3").statistics.success.count == 1


async def test_a_share_is_copied(rolled: Rolled) -> None:
    await rolled.take_up(current="1", shadow="2", shadow_share="0.25")
    for number in range(1, 13):
        await rolled.ask()
        await rolled.until(Compared, number // 4)
    await rolled.until(Compared, 3)
    assert len(await rolled.until(Sent, 15)) == 15


async def test_no_copy_is_made_while_something_waits(rolled: Rolled, monkeypatch: pytest.MonkeyPatch) -> None:
    await rolled.take_up(current="1", shadow="2", shadow_share="1")
    (current,) = [served for served in rolled.repository.catalogue.served() if served.version == "1"]
    monkeypatch.setattr(type(current.batcher), "queue_depth", property(lambda batcher: batcher is current.batcher))
    await rolled.ask()
    await rolled.until(Dropped)
    assert not [event for event in rolled.events if isinstance(event, Compared)]


async def test_few_copies_are_on_their_way(rolled: Rolled) -> None:
    await rolled.take_up(current="1", shadow="2", shadow_share="1")
    parts = [rolled.repository.catalogue.choose("colours", "").part for _ in range(MAX_COPIES + 5)]
    logits = (np.array([[1, 2, 3]], np.float32),)
    for part in parts:
        assert part
        part.answered(GREENISH, 1, logits, 0.001)
    await rolled.until(Compared, MAX_COPIES)
    assert len(await rolled.until(Dropped)) == 5
    assert len(await rolled.until(Sent)) == len(parts) + MAX_COPIES
    await rolled.ask()
    await rolled.until(Compared, MAX_COPIES + 1)


async def test_a_copy_does_not_queue_behind_requests_of_its_version(rolled: Rolled) -> None:
    await rolled.take_up(current="1", shadow="2", shadow_share="1")
    part = rolled.repository.catalogue.choose("colours", "").part
    assert part
    shadow = rolled.repository.catalogue.choose("colours", "2").served
    asked = asyncio.create_task(run(shadow, GREENISH, 1, deadline=asyncio.get_running_loop().time() + 1e9))
    await asyncio.sleep(0)
    assert shadow.batcher.queue_depth == 1
    part._look(GREENISH, 1, (np.array([[1, 2, 3]], np.float32),), 0.001)
    assert isinstance(rolled.events[-1], Dropped)
    await asked


async def test_what_a_shadow_fails_on_fails_nobody(rolled: Rolled, monkeypatch: pytest.MonkeyPatch) -> None:
    await rolled.take_up(current="1", shadow="2", shadow_share="1")
    (shadow,) = [served for served in rolled.repository.catalogue.served() if served.version == "2"]

    def fail(items: object) -> None:
        raise ValueError("broken")

    assert isinstance(shadow.batcher, DynamicBatcher)
    for instance in shadow.batcher._instances:
        monkeypatch.setattr(instance, "run", fail)
    await rolled.ask()
    (failed,) = await rolled.until(Failed)
    assert isinstance(failed, Failed)
    assert failed.side.role == "shadow"


async def test_scores_that_are_not_finite_have_failed(rolled: Rolled) -> None:
    await rolled.take_up(current="1", canary="2", canary_share="1")
    part = rolled.repository.catalogue.choose("colours", "").part
    assert part
    part.answered(GREENISH, 1, (np.array([[1, np.nan, 3]], np.float32),), 0.001)
    (failed,) = await rolled.until(Failed)
    assert isinstance(failed, Failed)
    assert failed.side.role == "canary"


async def test_features_that_are_not_finite_have_failed(tmp_path: Path) -> None:
    write_model(tmp_path, "features", versions=(1, 2), golden=False, extra=ALL, features=True)
    declare(tmp_path / "features", current="1", canary="2", canary_share="1")
    events: list[Event] = []
    async with started(tmp_path, events) as repository:
        part = repository.catalogue.choose("features", "").part
        assert part
        for value in (2, np.nan):
            part._look(GREENISH, 1, (np.array([[1, value, 3]], np.float32),), 0.001)
    canary = Side("features", "2", "canary")
    assert events[-2:] == [Answered(canary, 0.001, ()), Failed(canary)]


async def test_copies_on_their_way_keep_their_version_open(rolled: Rolled) -> None:
    await rolled.take_up(current="1", shadow="2", shadow_share="1")
    await rolled.ask()
    await rolled.repository.unload("colours")
    await rolled.repository.close()
    copied = [event for event in rolled.events if isinstance(event, Sent) and event.side.role == "shadow"]
    assert len([event for event in rolled.events if isinstance(event, Compared | Dropped)]) == max(1, len(copied))
