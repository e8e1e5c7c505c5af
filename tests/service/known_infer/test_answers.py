"""Known requests are answered from the connection as the application would have answered them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.service.inside import ORDINARY, Client, Inside, Values, infer, post, random_like, shown, tensors_of, words_of
from tests.service.known_infer.knowing import ONE, PAIR, know

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("model", "values", "options"),
    [
        ("simple", PAIR, {}),
        ("simple", dict(reversed([*PAIR.items()])), {}),
        ("simple", PAIR, {"outputs": ["OUTPUT1", "OUTPUT0"]}),
        ("simple", PAIR, {"outputs": ["OUTPUT1"]}),
        ("simple", PAIR, {"outputs": ["OUTPUT1", "OUTPUT0", "OUTPUT1"]}),
        ("simple", PAIR, {"outputs": [{"name": "OUTPUT0", "parameters": {"binary_data": True}}]}),
        ("simple", {name: np.repeat(array, 3, 0) for name, array in PAIR.items()}, {"an_own_one": "of the client"}),
        ("open", {"INPUT0": np.zeros((1, 2, 3), "<f4")}, {}),
        ("open", {"INPUT0": np.zeros((2, 4, 1), "<f4")}, {}),
        ("half", {"INPUT0": np.zeros((1, 5), "<f2")}, {}),
        ("unbatched", {"INPUT0": np.zeros((2, 3), "<f4")}, {}),
        ("empty", {"INPUT0": np.zeros((0,), "<f4")}, {}),
        ("classifier", {"SCORES": np.zeros((1, 4), "<f4")}, {"priority": 1}),
    ],
)
async def test_known_requests_are_answered_as_others(
    service: Inside, client: Client, model: str, values: Values, options: dict[str, Any]
) -> None:
    words = words_of(values, **options)
    first = await client.ask(post(model, words, tensors_of(values)))
    assert (first.status, service.known) == (200, [])
    for seed in range(3):
        tensors = tensors_of(random_like(values, seed))
        known = await client.ask(post(model, words, tensors))
        assert len(service.known) == seed + 1
        ordinary = await client.ask(post(model, words, tensors, ORDINARY))
        assert len(service.known) == seed + 1
        assert shown(known) == shown(ordinary)
        assert known.headers.keys() == ordinary.headers.keys()


async def test_a_version_is_answered_by_itself(service: Inside, client: Client) -> None:
    values = {"SCORES": np.array([[1, 2, 3, 4]], "<f4")}
    for version in ("1", "2", "1", "2", "", "1"):
        answer = await client.ask(infer("classifier", values, version=version))
        found, logits = answer.binary()
        assert found["model_version"] == (version or "2")
        assert logits == (values["SCORES"] * int(version or "2")).tobytes()
    assert len(service.known) == 3


@pytest.mark.parametrize(
    ("headers", "given"),
    [
        ([], None),
        (["x-request-id: mine"], "mine"),
        (["X-Request-ID: mine", "x-request-id: another"], "mine"),
        (["x-request-id: " + 129 * "a"], None),
    ],
)
async def test_a_request_id_is_given_back_or_made(
    service: Inside, client: Client, headers: list[str], given: str | None
) -> None:
    await know(service, client, infer("pair", ONE))
    for own in ([], [ORDINARY]):
        identity = (await client.ask(infer("pair", ONE, *headers, *own))).headers["x-request-id"]
        assert identity == given if given else re.fullmatch("[0-9a-f]{32}", identity)
    assert len(service.known) == 1
