"""Tensors over HTTP, by the Open Inference Protocol."""

from __future__ import annotations

from functools import cached_property

from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from loadtests.clients.client import TIMEOUT_S, RequestError
from loadtests.clients.tensors import made_up


class TensorsHttp:
    """The same tensors in each request, as binary data, by tritonclient.

    Args:
        url: `http://host:port`.
        model: its name.
        connections: the most; each request takes one for itself.
    """

    def __init__(self, url: str, model: str, connections: int) -> None:
        self._model = model
        self._triton = InferenceServerClient(
            url.removeprefix("http://"),
            concurrency=connections,
            connection_timeout=TIMEOUT_S,
            network_timeout=TIMEOUT_S,
        )

    def send(self) -> int:
        try:
            answer = self._triton.infer(self._model, self._inputs)
        except InferenceServerException as error:
            raise RequestError(f"{error.status()}: {error.message()}") from None
        return sum(answer.as_numpy(output["name"]).nbytes for output in answer.get_response()["outputs"])

    def close(self) -> None:
        self._triton.close()

    @cached_property
    def _inputs(self) -> list[InferInput]:
        inputs = []
        for described in self._triton.get_model_metadata(self._model)["inputs"]:
            tensor = made_up(described["datatype"], described["shape"])
            inputs.append(InferInput(described["name"], list(tensor.shape), described["datatype"]))
            inputs[-1].set_data_from_numpy(tensor)
        return inputs
