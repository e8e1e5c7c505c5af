"""Tensors over gRPC, by the Open Inference Protocol."""

from __future__ import annotations

from functools import cached_property

import grpc
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from loadtests.clients.client import TIMEOUT_S, RequestError
from loadtests.clients.images_grpc import OWN_CONNECTION
from loadtests.clients.tensors import made_up
from loadtests.refusals import reason


class TensorsGrpc:
    """The same tensors in each call, by tritonclient, all on one connection.

    Args:
        address: `host:port`.
        model: its name.
    """

    def __init__(self, address: str, model: str) -> None:
        self._model = model
        self._triton = InferenceServerClient(address, channel_args=OWN_CONNECTION)

    def send(self) -> int:
        try:
            answer = self._triton.infer(self._model, self._inputs, client_timeout=TIMEOUT_S)
        except InferenceServerException as error:
            call = error.__context__  # Tritonclient keeps its words alone.
            assert isinstance(call, grpc.RpcError)
            raise RequestError(reason(call)) from None
        length: int = answer.get_response().ByteSize()
        return length

    def close(self) -> None:
        self._triton.close()

    @cached_property
    def _inputs(self) -> list[InferInput]:
        inputs = []
        for described in self._triton.get_model_metadata(self._model, client_timeout=TIMEOUT_S).inputs:
            tensor = made_up(described.datatype, described.shape)
            inputs.append(InferInput(described.name, list(tensor.shape), described.datatype))
            inputs[-1].set_data_from_numpy(tensor)
        return inputs
