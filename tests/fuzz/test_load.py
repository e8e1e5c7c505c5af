"""Requests to load a model whose configuration is nearly right. What its graph does is trusted: it is code."""

from __future__ import annotations

import base64

from hypothesis import strategies as st

from tests.conformance.models import identity_graph
from tests.conformance.wire import Json
from tests.fuzz.campaign import campaign, try_inputs
from tests.fuzz.mutations import changed_bytes, changed_json, texts, to_json
from tests.fuzz.target import Target

CONFIG = {
    "name": "controlled",
    "backend": "onnxruntime",
    "max_batch_size": 4,
    "input": [{"name": "INPUT0", "data_type": "TYPE_FP32", "dims": ["2"]}],
    "output": [{"name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [2], "label_filename": "labels.txt"}],
    "version_policy": {"specific": {"versions": [1]}},
    "dynamic_batching": {
        "preferred_batch_size": [2],
        "max_queue_delay_microseconds": 100,
        "priority_levels": 2,
        "default_priority_level": 1,
        "default_queue_policy": {"timeout_action": "REJECT", "max_queue_size": 5},
        "priority_queue_policy": {"1": {"default_timeout_microseconds": 1000, "allow_timeout_override": True}},
    },
    "parameters": {"preprocessing.scale": {"string_value": "1"}},
}
WITHOUT_LABELS = CONFIG | {"output": [{"name": "OUTPUT0", "data_type": "TYPE_FP32", "dims": [2]}]}


@campaign(short=40, long=600)
def test_configs(target: Target, inputs: int) -> None:
    """What cannot be loaded leaves what is served; what can be, can be shown."""
    graph = base64.b64encode(identity_graph()).decode()

    @st.composite
    def bodies(draw: st.DrawFn) -> Json | bytes:
        config = draw(changed_json(draw(st.sampled_from((CONFIG, WITHOUT_LABELS)))))
        parameters = {"config": to_json(config).decode()}
        if draw(st.booleans()):
            parameters["file:1/model.onnx"] = graph
        if draw(st.booleans()):
            parameters[f"file:{draw(texts())}"] = draw(st.one_of(st.just("YQ=="), texts()))
        body = {"parameters": parameters}
        return draw(st.one_of(st.just(body), changed_json(body), changed_bytes(to_json(body))))

    def send(body: Json | bytes) -> None:
        target.post("/v2/repository/models/controlled/load", to_json(body))
        for path in ("/v2/models/controlled/config", "/v2/models/controlled", "/v2/models/controlled/stats"):
            target.request("GET", path, others=(503,))
        target.post("/v2/repository/index", b"")

    try_inputs("load", inputs, bodies(), send, target.service.resident_bytes)
    target.must_be_unharmed()
