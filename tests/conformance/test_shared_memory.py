"""extension_shared_memory: tensors in memory that client and server share."""

from __future__ import annotations

import mmap
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from grpc import StatusCode
from tritonclient.grpc import service_pb2

from tests.conformance.wire import (
    MALFORMED,
    SIMPLE_RAW,
    Grpc,
    Http,
    Json,
    refused,
    simple_inputs,
    simple_outputs,
    simple_request,
)

pytestmark = pytest.mark.extension("system_shared_memory")

SYSTEM = "/v2/systemsharedmemory"
CUDA = "/v2/cudasharedmemory"
SIZE = 256
# A region begins at a page, as memory can only be mapped so.
SECOND_REGION = mmap.PAGESIZE
# A region that cannot be mapped: Triton calls it its own failure, where it is the client's.
CANNOT_MAP = (400, 404, 500)
CANNOT_MAP_GRPC = (StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND, StatusCode.INTERNAL)


@dataclass
class Memory:
    """Shared memory for two regions; `name` is the first one's, `key` the operating system's."""

    name: str
    key: str
    content: mmap.mmap


@pytest.fixture
def memory(http: Http) -> Iterator[Memory]:
    """Memory that begins with the inputs of "simple", unregistered."""
    name = f"conformance_{uuid.uuid4().hex}"
    path = f"/dev/shm/{name}"
    with open(path, "x+b") as file:
        os.truncate(path, SECOND_REGION + SIZE)
        content = mmap.mmap(file.fileno(), SECOND_REGION + SIZE)
    try:
        content[:128] = b"".join(SIMPLE_RAW)
        yield Memory(name, f"/{name}", content)
    finally:
        http.post(f"{SYSTEM}/region/{name}/unregister")
        content.close()
        os.unlink(path)


@pytest.fixture
def region(http: Http, memory: Memory) -> Memory:
    """Memory whose first region is registered."""
    assert register(http, memory, offset=0, byte_size=SIZE) == (200, b"")
    return memory


def register(http: Http, memory: Memory, **members: Json) -> tuple[int, bytes]:
    answer = http.post(f"{SYSTEM}/region/{memory.name}/register", {"key": memory.key, **members})
    return answer.status, answer.body


def place(name: str, region: str, offset: int | None = 0, size: int | None = 64) -> Json:
    parameters: dict[str, Json] = {"shared_memory_region": region}
    if size is not None:
        parameters["shared_memory_byte_size"] = size
    if offset:
        parameters["shared_memory_offset"] = offset
    return {"name": name, "parameters": parameters}


def shared_input(name: str, region: str, offset: int = 0, size: int | None = 64) -> Json:
    return place(name, region, offset, size) | {"datatype": "INT32", "shape": [1, 16]}


def shared_inputs(region: Memory) -> list[Json]:
    return [shared_input("INPUT0", region.name), shared_input("INPUT1", region.name, 64)]


def test_register_status_unregister(http: Http, memory: Memory) -> None:
    """Register, status, unregister: 200 and no body; the status is a list of name, key, offset and size."""
    assert register(http, memory, offset=0, byte_size=SIZE) == (200, b"")
    expected = [{"name": memory.name, "key": memory.key, "offset": 0, "byte_size": SIZE}]
    assert http.get(f"{SYSTEM}/region/{memory.name}/status").json == expected
    assert [entry for entry in http.get(f"{SYSTEM}/status").json if entry["name"] == memory.name] == expected
    answer = http.post(f"{SYSTEM}/region/{memory.name}/unregister")
    assert (answer.status, answer.body) == (200, b"")
    assert memory.name not in {entry["name"] for entry in http.get(f"{SYSTEM}/status").json}


def test_register_status_unregister_over_grpc(grpc: Grpc, memory: Memory) -> None:
    """SystemSharedMemoryRegister, -Status, -Unregister: regions by name."""
    request = service_pb2.SystemSharedMemoryRegisterRequest(name=memory.name, key=memory.key, byte_size=SIZE)
    grpc.call("SystemSharedMemoryRegister", request)
    status = service_pb2.SystemSharedMemoryStatusRequest(name=memory.name)
    (entry,) = grpc.call("SystemSharedMemoryStatus", status).regions.values()
    assert (entry.name, entry.key, entry.offset, entry.byte_size) == (memory.name, memory.key, 0, SIZE)
    assert memory.name in grpc.call("SystemSharedMemoryStatus", service_pb2.SystemSharedMemoryStatusRequest()).regions
    grpc.call("SystemSharedMemoryUnregister", service_pb2.SystemSharedMemoryUnregisterRequest(name=memory.name))
    with refused(StatusCode.NOT_FOUND, text=f"'{memory.name}'"):
        grpc.call("SystemSharedMemoryStatus", status)


def test_unregister_all(http: Http, region: Memory) -> None:
    """Unregister without a region: all of them."""
    assert http.post(f"{SYSTEM}/unregister").status == 200
    assert http.get(f"{SYSTEM}/status").json == []


def test_unregister_what_is_not_registered(http: Http) -> None:
    """Unregister: nothing to do is no error."""
    assert http.post(f"{SYSTEM}/region/nope/unregister").status == 200


def test_status_of_an_unknown_region(http: Http) -> None:
    """Status: an unknown region is an error."""
    text = http.get(f"{SYSTEM}/region/nope/status").error(404, 400)
    assert text == "Unable to find system shared memory region: 'nope'"


def test_register_twice(http: Http, grpc: Grpc, region: Memory) -> None:
    """Register: a name is taken until it is unregistered."""
    answer = http.post(f"{SYSTEM}/region/{region.name}/register", {"key": region.key, "offset": 0, "byte_size": SIZE})
    assert answer.error(400, 409) == f"shared memory region '{region.name}' already in manager"
    request = service_pb2.SystemSharedMemoryRegisterRequest(name=region.name, key=region.key, byte_size=SIZE)
    with refused(StatusCode.ALREADY_EXISTS, text="already in manager"):
        grpc.call("SystemSharedMemoryRegister", request)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"key": "/nothing_here", "offset": 0, "byte_size": SIZE}, id="no such memory"),
        pytest.param({"key": "/../tmp/nothing_here", "offset": 0, "byte_size": SIZE}, id="a path"),
        pytest.param({"key": "", "offset": 0, "byte_size": SIZE}, id="no key"),
    ],
)
def test_register_what_is_not_there(http: Http, body: Json) -> None:
    """Register: the key is a shared memory object's."""
    assert http.post(f"{SYSTEM}/region/nope/register", body).error(*CANNOT_MAP)


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, SECOND_REGION + SIZE + 1), (2 * SECOND_REGION, SIZE), (2**40, 16), (0, 2**62), (2**62, 2**62)],
)
def test_register_beyond_the_memory(http: Http, memory: Memory, offset: int, size: int) -> None:
    """Register: offset and byte_size lie in the object."""
    body = {"key": memory.key, "offset": offset, "byte_size": size}
    assert http.post(f"{SYSTEM}/region/{memory.name}/register", body).error(*CANNOT_MAP)


@pytest.mark.parametrize("missing", ["key", "byte_size"])
def test_register_without_a_member(http: Http, memory: Memory, missing: str) -> None:
    """Register: key and byte_size are mandatory."""
    body: Json = {"key": memory.key, "offset": 0, "byte_size": SIZE}
    del body[missing]
    assert f"'{missing}'" in http.post(f"{SYSTEM}/region/{memory.name}/register", body).error(400)


def test_register_what_is_no_number(http: Http, memory: Memory) -> None:
    """Register: offset and byte_size are unsigned integers."""
    body = {"key": memory.key, "offset": -1, "byte_size": SIZE}
    assert http.post(f"{SYSTEM}/region/{memory.name}/register", body).error(*MALFORMED)


def test_register_over_grpc_what_is_not_there(grpc: Grpc) -> None:
    """SystemSharedMemoryRegister: the key is a shared memory object's."""
    request = service_pb2.SystemSharedMemoryRegisterRequest(name="nope", key="/nothing_here", byte_size=SIZE)
    with refused(*CANNOT_MAP_GRPC, text="/nothing_here"):
        grpc.call("SystemSharedMemoryRegister", request)


def test_inputs_in_shared_memory(http: Http, region: Memory) -> None:
    """Inputs: region, offset and size as parameters; no data."""
    answer = http.infer("simple", {"inputs": shared_inputs(region)}).json
    assert [output["data"] for output in answer["outputs"]] == [values.tolist() for values in simple_outputs()]


def test_inputs_change_with_the_memory(http: Http, region: Memory) -> None:
    """Inputs: read with each request."""
    region.content[64:128] = np.full(16, 5, "<i4").tobytes()
    answer = http.infer("simple", {"inputs": shared_inputs(region)}).json
    assert answer["outputs"][0]["data"] == (np.arange(16) + 5).tolist()


def test_an_offset_of_the_region(http: Http, memory: Memory) -> None:
    """Register with an offset: the region begins there."""
    memory.content[SECOND_REGION : SECOND_REGION + 64] = SIMPLE_RAW[1]
    assert register(http, memory, offset=SECOND_REGION, byte_size=SIZE)[0] == 200
    inputs = [simple_inputs()[0], shared_input("INPUT1", memory.name)]
    answer = http.infer("simple", {"inputs": inputs}).json
    assert answer["outputs"][0]["data"] == simple_outputs()[0].tolist()


def test_outputs_in_shared_memory(http: Http, region: Memory) -> None:
    """Outputs: written to the region; the answer has datatype and shape and no data."""
    outputs = [place("OUTPUT0", region.name, 128), place("OUTPUT1", region.name, 192)]
    answer = http.infer("simple", {"inputs": simple_inputs(), "outputs": outputs}).json
    for output, name in zip(answer["outputs"], ("OUTPUT0", "OUTPUT1"), strict=True):
        assert (output["name"], output["datatype"], output["shape"]) == (name, "INT32", [1, 16])
        assert "data" not in output
        assert "binary_data_size" not in output.get("parameters", {})
    assert region.content[128:SIZE] == b"".join(values.tobytes() for values in simple_outputs())


def test_an_output_in_shared_memory_beside_one_in_the_answer(http: Http, region: Memory) -> None:
    """Outputs: each by itself."""
    outputs = [place("OUTPUT0", region.name, 128), {"name": "OUTPUT1"}]
    answer = http.infer("simple", {"inputs": simple_inputs(), "outputs": outputs}).json
    assert answer["outputs"][1]["data"] == simple_outputs()[1].tolist()
    assert region.content[128:192] == simple_outputs()[0].tobytes()


def test_an_output_smaller_than_its_place(http: Http, region: Memory) -> None:
    """Outputs: the place may be larger; the rest of it stays as it is."""
    region.content[128:SIZE] = b"x" * 128
    outputs = [place("OUTPUT0", region.name, 128, 128)]
    assert http.infer("simple", {"inputs": simple_inputs(), "outputs": outputs}).status == 200
    assert region.content[128:SIZE] == simple_outputs()[0].tobytes() + b"x" * 64


def test_tensors_in_shared_memory_over_grpc(grpc: Grpc, region: Memory) -> None:
    """ModelInfer: parameters of the tensors; raw_output_contents has an empty entry for each such output."""
    request = simple_request(["OUTPUT0"])
    del request.raw_input_contents[:]
    for tensor, offset in ((request.inputs[0], 0), (request.inputs[1], 64), (request.outputs[0], 128)):
        tensor.parameters["shared_memory_region"].string_param = region.name
        tensor.parameters["shared_memory_byte_size"].int64_param = 64
        tensor.parameters["shared_memory_offset"].int64_param = offset
    answer = grpc.infer(request)
    assert [(output.name, list(output.shape)) for output in answer.outputs] == [("OUTPUT0", [1, 16])]
    assert list(answer.raw_output_contents) == [b""]
    assert region.content[128:192] == simple_outputs()[0].tobytes()


def test_unknown_region(http: Http, grpc: Grpc) -> None:
    """Inputs and outputs: the region is registered."""
    text = "Unable to find shared memory region: 'nope'"
    inputs = [shared_input("INPUT0", "nope"), simple_inputs()[1]]
    assert http.infer("simple", {"inputs": inputs}).error(404, 400) == text
    outputs = [place("OUTPUT0", "nope")]
    assert http.infer("simple", {"inputs": simple_inputs(), "outputs": outputs}).error(404, 400) == text
    request = simple_request(["OUTPUT0"])
    request.outputs[0].parameters["shared_memory_region"].string_param = "nope"
    request.outputs[0].parameters["shared_memory_byte_size"].int64_param = 64
    with refused(StatusCode.NOT_FOUND, StatusCode.INVALID_ARGUMENT, text=text):
        grpc.infer(request)


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        pytest.param(SIZE - 32, 64, id="over the end"),
        pytest.param(SIZE, 64, id="at the end"),
        pytest.param(2**40, 64, id="far beyond"),
        pytest.param(2**63, 64, id="beyond 63 bits"),
        pytest.param(2**64 - 64, 64, id="around"),
        pytest.param(0, 60, id="less than the shape"),
        pytest.param(0, 128, id="more than the shape"),
        pytest.param(0, 0, id="nothing"),
        pytest.param(0, None, id="no size"),
    ],
)
def test_input_beyond_the_region(http: Http, region: Memory, offset: int, size: int | None) -> None:
    """Inputs: offset and size lie in the region, and are the shape's."""
    inputs = [shared_input("INPUT0", region.name, offset, size), simple_inputs()[1]]
    assert http.infer("simple", {"inputs": inputs}).error(400)


@pytest.mark.parametrize(("offset", "size"), [(SIZE - 32, 64), (SIZE, 64), (2**40, 64), (2**64 - 64, 64)])
def test_output_beyond_the_region(http: Http, region: Memory, offset: int, size: int) -> None:
    """Outputs: offset and size lie in the region."""
    outputs = [place("OUTPUT0", region.name, offset, size)]
    assert http.infer("simple", {"inputs": simple_inputs(), "outputs": outputs}).error(400)


def test_output_larger_than_its_place(http: Http, region: Memory) -> None:
    """Outputs: what does not fit is an error, and is not written."""
    outputs = [place("OUTPUT0", region.name, 128, 60)]
    # Only known when the model has run, which makes it the server's failure in Triton.
    text = http.infer("simple", {"inputs": simple_inputs(), "outputs": outputs}).error(400, 500)
    assert "'OUTPUT0'" in text
    assert region.content[128:SIZE] == bytes(128)


@pytest.mark.parametrize("offset", [-4, "0", 1.5])
def test_offset_that_is_no_number(http: Http, region: Memory, offset: Json) -> None:
    """Parameters: unsigned integers."""
    entry = shared_input("INPUT0", region.name)
    entry["parameters"]["shared_memory_offset"] = offset
    assert http.infer("simple", {"inputs": [entry, simple_inputs()[1]]}).error(*MALFORMED)


def test_data_in_two_places(http: Http, region: Memory) -> None:
    """Inputs: no data beside a region."""
    inputs = [shared_input("INPUT0", region.name) | {"data": [1] * 16}, simple_inputs()[1]]
    text = http.infer("simple", {"inputs": inputs}).error(400)
    assert "'data'" in text
    assert "'shared_memory_region'" in text


@pytest.mark.extension("classification")
def test_classes_in_shared_memory_are_refused(http: Http, region: Memory) -> None:
    """Outputs: classification has no place in shared memory."""
    output = place("OUTPUT0", region.name, 128)
    output["parameters"]["classification"] = 2
    text = http.infer("simple", {"inputs": simple_inputs(), "outputs": [output]}).error(400)
    assert text == "Output can't set both 'shared_memory_region' and 'classification'"


@pytest.mark.extension("cuda_shared_memory")
def test_cuda_regions(http: Http, grpc: Grpc) -> None:
    """CUDA shared memory: a status, even where no region can be."""
    assert http.get(f"{CUDA}/status").json == []
    assert not grpc.call("CudaSharedMemoryStatus", service_pb2.CudaSharedMemoryStatusRequest()).regions
    assert http.post(f"{CUDA}/unregister").status == 200


@pytest.mark.extension("cuda_shared_memory")
def test_cuda_handle_that_is_none(grpc: Grpc) -> None:
    """CUDA shared memory: a handle that is none is refused."""
    request = service_pb2.CudaSharedMemoryRegisterRequest(name="nope", raw_handle=bytes(64), byte_size=64)
    with refused(StatusCode.INVALID_ARGUMENT, StatusCode.INTERNAL):
        grpc.call("CudaSharedMemoryRegister", request)
