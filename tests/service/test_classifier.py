from __future__ import annotations

import asyncio
import math
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.backends.onnx_runtime import OnnxRuntimeEngine
from service.batching import DynamicBatcher
from service.classifier import Classifier, Predictions, Result, finite, rank
from service.decoding import Decoder
from service.errors import (
    DeadlineExceededError,
    FoveaError,
    InferenceError,
    InvalidInputError,
    NotFoundError,
    QueueFullError,
    TooLargeError,
)
from service.images import ImageLimits
from service.repository import Repository
from service.trial import Event, Failed, Observe, Sent, Side, TakenUp
from tests.repositories import picture, write_model
from tests.service.pictures import encode, scene

LIMITS = ImageLimits(2**20, 2**20, 10)


def soon() -> float:
    return time.monotonic() + 60


@pytest.fixture
async def classifier(tmp_path: Path) -> AsyncIterator[Classifier]:
    write_model(tmp_path)
    async with classifier_of(tmp_path) as classifier:
        yield classifier


@asynccontextmanager
async def classifier_of(folder: Path, on_trial: Observe = lambda event: None) -> AsyncIterator[Classifier]:
    repository = Repository(
        folder,
        OnnxRuntimeEngine("cpu", device_id=0),
        max_queue_size=100,
        default_model=None,
        on_batch=lambda model, version, record: None,
        on_trial=on_trial,
    )
    decoder = Decoder(LIMITS, max_waiting=4, threads=1)
    classifier = Classifier(repository.catalogue, decoder, max_images=40)
    await repository.start()
    yield classifier
    await repository.close()
    decoder.close()


def top_labels(results: list[Result[Predictions] | FoveaError]) -> list[str]:
    return [r.value[0].label if isinstance(r, Result) else type(r).__name__ for r in results]


async def test_images_are_answered_in_their_order(classifier: Classifier) -> None:
    colours = ["red", "blue", "lime", "red"] * 10
    answer = await classifier.classify([picture(colour) for colour in colours], deadline=soon())
    assert top_labels(answer.results) == [{"lime": "green"}.get(colour, colour) for colour in colours]
    assert (answer.model, answer.version) == ("colours", "1")


async def test_probabilities_are_those_of_the_logits(classifier: Classifier) -> None:
    (result,) = (await classifier.classify([picture("red", image_format="PNG")], deadline=soon())).results
    assert isinstance(result, Result)
    assert [p.label for p in result.value] == ["red", "green", "blue"]
    assert [p.index for p in result.value] == [0, 1, 2]
    expected = math.exp(10) / (math.exp(10) + 2)
    assert result.value[0].probability == pytest.approx(expected)
    assert sum(p.probability for p in result.value) == pytest.approx(1)


async def test_stages_add_up(classifier: Classifier) -> None:
    (result,) = (await classifier.classify([picture("red")], deadline=soon())).results
    assert isinstance(result, Result)
    s = result.stages
    parts = (s.decode_s, s.queue_s, s.batch_assembly_s, s.inference_s, s.postprocessing_s)
    assert all(part > 0 for part in parts)
    assert sum(parts) <= s.total_s


async def test_one_bad_image_leaves_its_neighbours_alone(classifier: Classifier) -> None:
    images: list[bytes | FoveaError] = [
        picture("red"),
        b"nonsense",
        InvalidInputError("not base64"),
        b"",
        bytes(2**20 + 1),
        picture("blue"),
    ]
    results = (await classifier.classify(images, deadline=soon())).results
    assert top_labels(results) == [
        "red", "InvalidInputError", "InvalidInputError", "InvalidInputError", "TooLargeError", "blue",
    ]  # fmt: skip
    assert [str(result)[:13] for result in results[1:5]] == [f"image {n} of 6:" for n in (2, 3, 4, 5)]


async def test_what_would_be_refused_is_not_decoded(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_full(batcher: object, rows: int = 1) -> None:
        raise QueueFullError(f"no room for {rows}")

    monkeypatch.setattr(DynamicBatcher, "require_room", is_full)
    for images in ([b"nonsense"], [b"nonsense", picture("red")]):
        with pytest.raises(QueueFullError, match="no room for 1"):
            await classifier.classify(images, deadline=soon())


async def test_what_a_full_queue_refuses_has_failed_in_its_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_full(batcher: object, rows: int = 1) -> None:
        raise QueueFullError("no room")

    model = write_model(tmp_path, versions=(1, 2), golden=False, extra="version_policy { all { } }")
    with (model / "config.pbtxt").open("a") as config:
        for name, value in (("current", "1"), ("canary", "2"), ("canary_share", "1")):
            config.write(f'parameters {{ key: "rollout.{name}" value {{ string_value: "{value}" }} }}\n')
    events: list[Event] = []
    async with classifier_of(tmp_path, events.append) as classifier:
        monkeypatch.setattr(DynamicBatcher, "require_room", is_full)
        with pytest.raises(QueueFullError):
            await classifier.classify([picture("red")], deadline=soon())
        refused = classifier.refuse_if_full("", "", features=False)
        assert refused
        assert refused[0] == "colours"
        assert str(refused[1]) == "no room"
        assert classifier.refuse_if_full("", "", features=True) is None
        assert classifier.refuse_if_full("none", "", features=False) is None
    canary = Side("colours", "2", "canary")
    assert [event for event in events if not isinstance(event, TakenUp)] == [Sent(canary), Failed(canary)] * 2


async def test_large_images_go_through_the_threads(classifier: Classifier) -> None:
    large = encode(scene(400, 300), "PNG")
    assert len(large) > 2**14
    answer = await classifier.classify([large, large], deadline=soon())
    assert all(isinstance(result, Result) for result in answer.results)


async def test_too_many_images_waiting_to_be_decoded_are_refused(classifier: Classifier) -> None:
    large = encode(scene(500, 400), "PNG")
    requests = [classifier.classify([large], deadline=soon()) for _ in range(30)]
    outcomes = await asyncio.gather(*requests, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, QueueFullError)]
    assert len(refused) == 26
    assert "4 images are waiting to be decoded" in str(refused[0])
    assert isinstance((await classifier.classify([large], deadline=soon())).results[0], Result)


@pytest.mark.parametrize("image", [picture("red"), encode(scene(400, 300), "PNG")], ids=["small", "large"])
async def test_a_deadline_that_has_passed(classifier: Classifier, image: bytes) -> None:
    with pytest.raises(DeadlineExceededError):
        await classifier.classify([image], deadline=time.monotonic() - 1)
    with pytest.raises(DeadlineExceededError):
        await classifier.classify([image, image], deadline=time.monotonic() - 1)


@pytest.mark.parametrize(("top_k", "count"), [(None, 3), (1, 1), (2, 2), (3, 3), (1000, 3)])
async def test_top_k(classifier: Classifier, top_k: int | None, count: int) -> None:
    (result,) = (await classifier.classify([picture("red")], top_k=top_k, deadline=soon())).results
    assert isinstance(result, Result)
    assert len(result.value) == count


async def test_what_a_whole_request_is_refused_for(classifier: Classifier) -> None:
    image = picture("red")
    with pytest.raises(InvalidInputError, match="no images"):
        await classifier.classify([], deadline=soon())
    with pytest.raises(TooLargeError, match="41 images: a request may have at most 40"):
        await classifier.classify([image] * 41, deadline=soon())
    for top_k in (0, -1):
        with pytest.raises(InvalidInputError, match=f"top_k is {top_k}: must be at least 1"):
            await classifier.classify([image], top_k=top_k, deadline=soon())
    with pytest.raises(NotFoundError, match="Request for unknown model: 'x' is not found"):
        await classifier.classify([image], model="x", deadline=soon())
    with pytest.raises(NotFoundError, match="version 2 is not found"):
        await classifier.classify([image], version="2", deadline=soon())


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20), st.integers(1, 25))
def test_rank_is_a_softmax_in_descending_order(values: list[float], top_k: int) -> None:
    labels = [f"label {index}" for index in range(len(values))]
    predictions = rank(np.array(values, np.float32), labels, top_k)
    assert len(predictions) == min(top_k, len(values))
    assert predictions[0].index == int(np.argmax(values))
    probabilities = [p.probability for p in predictions]
    assert probabilities == sorted(probabilities, reverse=True)
    assert all(0 <= probability <= 1 for probability in probabilities)
    assert all(p.label == labels[p.index] for p in predictions)
    if top_k >= len(values):
        assert sum(probabilities) == pytest.approx(1)


def test_rank_puts_equals_in_the_order_of_their_labels() -> None:
    assert [p.index for p in rank(np.array([1, 5, 5, 1], np.float32), "abcd", 4)] == [1, 2, 0, 3]


@pytest.mark.parametrize("logit", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_an_error(logit: float) -> None:
    with pytest.raises(InferenceError, match="not finite"):
        rank(np.array([1, logit, 0], np.float32), "abc", 3)


async def test_features_of_each_image(tmp_path: Path) -> None:
    write_model(tmp_path, "features", features=True)
    async with classifier_of(tmp_path) as classifier:
        answer = await classifier.embed([picture("red", image_format="PNG"), b"nonsense"], deadline=soon())
    assert (answer.model, answer.version) == ("features", "1")
    good, bad = answer.results
    assert isinstance(good, Result)
    assert (good.value.dtype.name, good.value.shape) == ("float32", (3,))
    assert good.value == pytest.approx([10, 0, 0])
    assert isinstance(bad, InvalidInputError)


async def test_each_use_has_its_default_model(tmp_path: Path) -> None:
    image = picture("red")
    for name in ("features", "more"):
        write_model(tmp_path, name, features=True)
    async with classifier_of(tmp_path) as classifier:
        with pytest.raises(InvalidInputError, match="no model named: must be one of features, more"):
            await classifier.embed([image], deadline=soon())
        with pytest.raises(InvalidInputError, match="no model named, and none that is ready gives classes"):
            await classifier.classify([image], deadline=soon())
        assert [classifier.known_model("", features=features) for features in (False, True)] == ["", ""]
        assert (await classifier.embed([image], model="more", deadline=soon())).model == "more"
    write_model(tmp_path)
    shutil.rmtree(tmp_path / "more")
    async with classifier_of(tmp_path) as classifier:
        assert (await classifier.embed([image], deadline=soon())).model == "features"
        assert (await classifier.classify([image], deadline=soon())).model == "colours"
        assert [classifier.known_model("", features=features) for features in (False, True)] == ["colours", "features"]


async def test_a_classifier_gives_no_features(classifier: Classifier) -> None:
    with pytest.raises(InvalidInputError, match="no model named, and none that is ready gives features"):
        await classifier.embed([picture("red")], deadline=soon())
    with pytest.raises(InvalidInputError, match="'colours' gives classes, not features: /v1/classify and Classify"):
        await classifier.embed([picture("red")], model="colours", deadline=soon())


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_features_that_are_not_finite_are_an_error(value: float) -> None:
    with pytest.raises(InferenceError, match="features are not finite"):
        finite(np.array([[1, value]], np.float32))
