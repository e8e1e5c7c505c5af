"""`inference.GRPCInferenceService`: the gRPC side of the Open Inference Protocol, with Triton's extensions.

The stubs are those that tritonclient ships.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

import grpc
from google.protobuf.message import Message
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from service.control import Control, require_load_parameter
from service.errors import FoveaError, InvalidInputError, UnsupportedError
from service.inference import Inference, check_parameters
from service.lifecycle import STOPPING, Lifecycle
from service.log_settings import LogSettings, LogValue
from service.protocol import ServiceInformation, require_version
from service.rpc.call import Context, abort, begin, in_order, outcome
from service.rpc.infer_message import inputs_of, number_of, response_of, wanted_of
from service.rpc.known_infer import INFER_METHOD, KnownInfer
from service.shared_memory import SharedMemory
from service.telemetry import RequestRecord, Telemetry
from service.trace_settings import TraceSettings

Answered = TypeVar("Answered", bound=Message)

STREAM_METHOD = "inference.GRPCInferenceService/ModelStreamInfer"
SETTING_FIELDS = {bool: "bool_param", int: "uint32_param", str: "string_param"}
"""The field of a log setting's value for each type."""


class InferenceServicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Args:
    known: knows calls again that were answered; None: nobody asks it.
    request_timeout_s: for calls without a deadline, and the most that one may ask for.
    """

    def __init__(
        self,
        inference: Inference,
        information: ServiceInformation,
        control: Control,
        memory: SharedMemory,
        log_settings: LogSettings,
        trace_settings: TraceSettings,
        telemetry: Telemetry,
        lifecycle: Lifecycle,
        known: KnownInfer | None,
        *,
        request_timeout_s: float,
    ) -> None:
        self._inference = inference
        self._information = information
        self._control = control
        self._memory = memory
        self._log_settings = log_settings
        self._trace_settings = trace_settings
        self._telemetry = telemetry
        self._lifecycle = lifecycle
        self._known = known
        self._request_timeout_s = request_timeout_s

    async def ServerLive(self, request: pb.ServerLiveRequest, context: Context) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=True)

    async def ServerReady(self, request: pb.ServerReadyRequest, context: Context) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._lifecycle.not_ready is None)

    async def ServerMetadata(self, request: pb.ServerMetadataRequest, context: Context) -> pb.ServerMetadataResponse:
        return self._information.server()

    async def ModelReady(self, request: pb.ModelReadyRequest, context: Context) -> pb.ModelReadyResponse:
        def answer() -> pb.ModelReadyResponse:
            ready = self._information.ready(request.name, require_version(request.version))
            return pb.ModelReadyResponse(ready=ready)

        return await _or_abort(context, answer)

    async def ModelMetadata(self, request: pb.ModelMetadataRequest, context: Context) -> pb.ModelMetadataResponse:
        return await _or_abort(context, lambda: self._information.model(request.name, require_version(request.version)))

    async def ModelConfig(self, request: pb.ModelConfigRequest, context: Context) -> pb.ModelConfigResponse:
        return await _or_abort(
            context, lambda: self._information.config(request.name, require_version(request.version))
        )

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest, context: Context) -> pb.ModelStatisticsResponse:
        try:
            return await self._information.statistics(request.name, require_version(request.version))
        except FoveaError as error:
            await abort(context, error)

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest, context: Context) -> pb.RepositoryIndexResponse:
        def answer() -> pb.RepositoryIndexResponse:
            _require_no_name(request.repository_name)
            return self._information.index(ready=request.ready)

        return await _or_abort(context, answer)

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: Context
    ) -> pb.RepositoryModelLoadResponse:
        await begin(context, self._lifecycle, self._telemetry)
        config: str | None = None
        files: dict[str, bytes] = {}
        try:
            _require_no_name(request.repository_name)
            for key, parameter in request.parameters.items():
                require_load_parameter(key)
                field = "string_param" if key == "config" else "bytes_param"
                if parameter.WhichOneof("parameter_choice") != field:
                    raise InvalidInputError(f"invalid value type for load parameter '{key}', expected {field}.")
                if key == "config":
                    config = parameter.string_param
                else:
                    files[key] = parameter.bytes_param
            await self._control.load(request.model_name, config, files)
        except FoveaError as error:
            await abort(context, error)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        await begin(context, self._lifecycle, self._telemetry)
        try:
            _require_no_name(request.repository_name)
            await self._control.unload(request.model_name)
        except FoveaError as error:
            await abort(context, error)
        return pb.RepositoryModelUnloadResponse()

    async def SystemSharedMemoryStatus(
        self, request: pb.SystemSharedMemoryStatusRequest, context: Context
    ) -> pb.SystemSharedMemoryStatusResponse:
        def answer() -> pb.SystemSharedMemoryStatusResponse:
            response = pb.SystemSharedMemoryStatusResponse()
            for region in self._memory.system_regions(request.name):
                entry = response.regions[region.name]
                entry.name, entry.key = region.name, region.key
                entry.offset, entry.byte_size = region.offset, region.byte_size
            return response

        return await _or_abort(context, answer)

    async def SystemSharedMemoryRegister(
        self, request: pb.SystemSharedMemoryRegisterRequest, context: Context
    ) -> pb.SystemSharedMemoryRegisterResponse:
        def answer() -> pb.SystemSharedMemoryRegisterResponse:
            self._memory.register_system(request.name, request.key, request.offset, request.byte_size)
            return pb.SystemSharedMemoryRegisterResponse()

        return await _or_abort(context, answer)

    async def SystemSharedMemoryUnregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest, context: Context
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        def answer() -> pb.SystemSharedMemoryUnregisterResponse:
            self._memory.unregister_system(request.name)
            return pb.SystemSharedMemoryUnregisterResponse()

        return await _or_abort(context, answer)

    async def LogSettings(self, request: pb.LogSettingsRequest, context: Context) -> pb.LogSettingsResponse:
        def answer() -> pb.LogSettingsResponse:
            response = pb.LogSettingsResponse()
            changes = {name: _setting(value) for name, value in request.settings.items()}
            for name, value in self._log_settings.change(changes).items():
                setattr(response.settings[name], SETTING_FIELDS[type(value)], value)
            return response

        return await _or_abort(context, answer)

    async def TraceSetting(self, request: pb.TraceSettingRequest, context: Context) -> pb.TraceSettingResponse:
        def answer() -> pb.TraceSettingResponse:
            response = pb.TraceSettingResponse()
            changes = {name: list(words.value) for name, words in request.settings.items()}
            for name, words in self._trace_settings.change(request.model_name, changes).items():
                response.settings[name].value.extend(words)
            return response

        return await _or_abort(context, answer)

    async def CudaSharedMemoryStatus(
        self, request: pb.CudaSharedMemoryStatusRequest, context: Context
    ) -> pb.CudaSharedMemoryStatusResponse:
        def answer() -> pb.CudaSharedMemoryStatusResponse:
            response = pb.CudaSharedMemoryStatusResponse()
            for region in self._memory.cuda_regions(request.name):
                entry = response.regions[region.name]
                entry.name, entry.device_id, entry.byte_size = region.name, region.device_id, region.byte_size
            return response

        return await _or_abort(context, answer)

    async def CudaSharedMemoryRegister(
        self, request: pb.CudaSharedMemoryRegisterRequest, context: Context
    ) -> pb.CudaSharedMemoryRegisterResponse:
        def answer() -> pb.CudaSharedMemoryRegisterResponse:
            self._memory.register_cuda(request.name, request.raw_handle, request.device_id, request.byte_size)
            return pb.CudaSharedMemoryRegisterResponse()

        return await _or_abort(context, answer)

    async def CudaSharedMemoryUnregister(
        self, request: pb.CudaSharedMemoryUnregisterRequest, context: Context
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        def answer() -> pb.CudaSharedMemoryUnregisterResponse:
            self._memory.unregister_cuda(request.name)
            return pb.CudaSharedMemoryUnregisterResponse()

        return await _or_abort(context, answer)

    async def ModelInfer(self, request: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        await begin(context, self._lifecycle, self._telemetry)
        answered = await self._outcome(request, context)
        if isinstance(answered, FoveaError):
            # gRPC keeps the exception that `abort` raises, and with it this frame: leave no tensors in it.
            del request
            await abort(context, answered)
        return answered

    async def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        await begin(context, self._lifecycle, self._telemetry)

        async def answer(request: pb.ModelInferRequest) -> pb.ModelStreamInferResponse:
            answered = await self._outcome(request, None)
            if isinstance(answered, FoveaError):
                return pb.ModelStreamInferResponse(
                    error_message=str(answered), infer_response=pb.ModelInferResponse(id=request.id)
                )
            answered.parameters["triton_final_response"].bool_param = True
            return pb.ModelStreamInferResponse(infer_response=answered)

        async for response in in_order(requests, answer, self._lifecycle.stopping):
            yield response
        if self._lifecycle.stopping.is_set():
            await context.abort(grpc.StatusCode.UNAVAILABLE, STOPPING)

    async def _outcome(
        self, request: pb.ModelInferRequest, context: Context | None
    ) -> pb.ModelInferResponse | FoveaError:
        remaining_s = context.time_remaining() if context else None
        # What comes on a stream is never asked for as a known call.
        known = self._known if context else None
        return await outcome(
            self._lifecycle,
            self._telemetry,
            INFER_METHOD if context else STREAM_METHOD,
            lambda record: self._infer(request, remaining_s, record, known),
            context,
        )

    async def _infer(
        self,
        request: pb.ModelInferRequest,
        remaining_s: float | None,
        record: RequestRecord,
        known: KnownInfer | None,
    ) -> pb.ModelInferResponse:
        timeout_s = min(self._request_timeout_s, self._request_timeout_s if remaining_s is None else remaining_s)
        record.model = self._inference.known_model(request.model_name)
        served, part = self._inference.choose(request.model_name, require_version(request.model_version))
        check_parameters(request.parameters)
        inputs = inputs_of(request, self._memory)
        outputs = {output.name: wanted_of(output, self._memory) for output in request.outputs}
        priority = number_of(request.parameters, "priority", ("int64_param", "uint64_param"))
        timeout_us = number_of(request.parameters, "timeout", ("int64_param", "uint64_param"))
        answer = await self._inference.infer(
            served,
            inputs,
            outputs=list(outputs),
            priority=priority,
            timeout_us=timeout_us,
            deadline=time.monotonic() + timeout_s,
            request_id=request.id,
            part=part,
        )
        self._telemetry.inferred(record, answer.model, answer.version, answer.timeline, request.id)
        response = response_of(request.id, answer, outputs, self._memory)
        if known:
            known.remember(request, served, inputs, answer, response, priority=priority, timeout_us=timeout_us)
        return response


def _setting(value: pb.LogSettingsRequest.SettingValue) -> LogValue | None:
    field = value.WhichOneof("parameter_choice")
    return getattr(value, field) if field else None


def _require_no_name(repository: str) -> None:
    if repository:
        raise UnsupportedError("'repository_name' specification is not supported")


async def _or_abort(context: Context, answer: Callable[[], Answered]) -> Answered:
    try:
        return answer()
    except FoveaError as error:
        await abort(context, error)
