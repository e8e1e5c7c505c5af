"""Known requests while versions come and go."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.conformance.models import Value, graph, write_model
from tests.service.inside import ORDINARY, Client, Inside, infer, shown
from tests.service.known_infer.knowing import ONE, REUSED, know

pytestmark = pytest.mark.asyncio(loop_scope="module")


def scaled(repository: Path, factor: float, *, width: int = 2) -> None:
    """Write the model, in place of the one before."""
    nodes = [helper.make_node("Mul", ["INPUT0", "factor"], ["OUTPUT0"])]
    initializers = [helper.make_tensor("factor", onnx.TensorProto.FLOAT, [], [factor])]
    inputs, outputs = [Value("INPUT0", "FP32", (width,))], [Value("OUTPUT0", "FP32", (width,))]
    folder = repository / REUSED
    if not folder.exists():
        write_model(repository, REUSED, inputs, outputs, {1: (nodes, initializers)})
    config = (folder / "config.pbtxt").read_text()
    (folder / "config.pbtxt").write_text(re.sub(r"dims: \[\d+\]", f"dims: [{width}]", config))
    onnx.save(graph(inputs, outputs, nodes, initializers), folder / "1" / "model.onnx")


async def test_the_version_that_is_served_answers(service: Inside, client: Client) -> None:
    folder, repository = service.folder, service.running.repository
    request = infer(REUSED, ONE)
    assert (await client.ask(request)).status == 404
    for factor in (2, 3):
        scaled(folder, factor)
        await repository.load(REUSED)
        for known in (0, 1, 2):
            assert (await client.ask(request)).binary()[1] == (ONE["INPUT0"] * factor).tobytes()
            assert len(service.known) == known
        service.known.clear()
    scaled(folder, 4, width=3)
    await repository.load(REUSED)
    refused = await client.ask(request)
    assert shown(refused) == shown(await client.ask(infer(REUSED, ONE, ORDINARY)))
    assert "unexpected shape" in refused.error(400)
    await know(service, client, infer(REUSED, {"INPUT0": np.zeros((1, 3), "<f4")}))
    await repository.unload(REUSED)
    gone = await client.ask(infer(REUSED, {"INPUT0": np.zeros((1, 3), "<f4")}))
    assert gone.error(404) == f"Request for unknown model: '{REUSED}' has no available versions"
    assert not service.known


async def test_a_new_version_answers_as_soon_as_it_is_there(service: Inside, client: Client) -> None:
    folder, repository = service.folder, service.running.repository
    scaled(folder, 2)
    await repository.load(REUSED)
    request, named = infer(REUSED, ONE), infer(REUSED, ONE, version="1")
    for each in (request, named):
        await know(service, client, each)
    shutil.copytree(folder / REUSED / "1", folder / REUSED / "2")
    try:
        await repository.load(REUSED)
        for known in (0, 1):
            assert (await client.ask(request)).binary()[0]["model_version"] == "2"
            assert len(service.known) == known
        # Only the newest is served.
        assert (await client.ask(named)).error(404).endswith("version 1 is not found")
    finally:
        shutil.rmtree(folder / REUSED / "2")
    await repository.load(REUSED)
    assert (await client.ask(named)).binary()[0]["model_version"] == "1"


async def test_a_version_answers_what_it_has_before_it_goes(service: Inside, client: Client) -> None:
    repository = service.running.repository
    scaled(service.folder, 2)
    await repository.load(REUSED)
    request = infer(REUSED, ONE)
    await know(service, client, request)
    service.gate.shut()
    client.send(request)
    await service.gate.reached()
    await repository.unload(REUSED)
    async with await service.connect() as other:
        assert (await other.ask(request)).status == 404
    service.gate.open()
    assert (await client.answer()).binary()[1] == (ONE["INPUT0"] * 2).tobytes()
