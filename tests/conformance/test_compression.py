"""HTTP compression, as Triton's inference protocol has it: gzip and deflate, both ways."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable

import pytest

from tests.conformance.wire import (
    LENGTH_HEADER,
    MALFORMED,
    SIMPLE_RAW,
    Answer,
    Http,
    Json,
    binary_tensor,
    simple_inputs,
    simple_outputs,
)

# "deflate" is zlib's format: RFC 9110, 8.4.1.2.
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "deflate": zlib.decompress}
REQUEST: Json = {"inputs": simple_inputs()}
BODY = json.dumps(REQUEST).encode()
# 415 is HTTP's own status for it; Triton's is 501, and was 400.
UNKNOWN_ENCODING = (415, 501, 400)

encodings = pytest.mark.parametrize("encoding", COMPRESS)


def decoded(answer: Answer) -> Json:
    content = DECOMPRESS[answer.headers["content-encoding"]](answer.body)
    assert answer.headers.get("content-length") == str(len(answer.body))
    return json.loads(content)


@encodings
def test_compressed_request(http: Http, encoding: str) -> None:
    """Content-Encoding: the body is compressed."""
    answer = http.infer("simple", COMPRESS[encoding](BODY), {"Content-Encoding": encoding}).json
    assert answer["outputs"][0]["data"] == simple_outputs()[0].tolist()


@encodings
def test_compressed_answer(http: Http, encoding: str) -> None:
    """Accept-Encoding: the answer is compressed, and says so."""
    answer = http.infer("simple", BODY, {"Accept-Encoding": encoding})
    assert answer.headers["content-encoding"] == encoding
    assert decoded(answer)["outputs"][0]["data"] == simple_outputs()[0].tolist()


@encodings
def test_compressed_request_and_answer(http: Http, encoding: str) -> None:
    """Both at once."""
    headers = {"Content-Encoding": encoding, "Accept-Encoding": encoding}
    answer = http.infer("simple", COMPRESS[encoding](BODY), headers)
    assert decoded(answer)["outputs"][0]["data"] == simple_outputs()[0].tolist()


@encodings
@pytest.mark.extension("binary_tensor_data")
def test_compressed_binary_tensors(http: Http, encoding: str) -> None:
    """Inference-Header-Content-Length: counts the JSON before compression, both ways."""
    inputs = [binary_tensor(name, "INT32", [1, 16], 64) for name in ("INPUT0", "INPUT1")]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    headers = {LENGTH_HEADER: str(len(head)), "Content-Encoding": encoding, "Accept-Encoding": encoding}
    answer = http.infer("simple", COMPRESS[encoding](head + b"".join(SIMPLE_RAW)), headers)
    assert answer.status == 200
    content = DECOMPRESS[answer.headers["content-encoding"]](answer.body)
    length = int(answer.headers[LENGTH_HEADER.lower()])
    assert json.loads(content[:length])["model_name"] == "simple"
    assert content[length:] == b"".join(values.tobytes() for values in simple_outputs())


@pytest.mark.parametrize("accepted", ["gzip, deflate", "deflate, gzip", "br, gzip", "gzip;q=0.5, deflate;q=0.9"])
def test_client_that_accepts_several_encodings(http: Http, accepted: str) -> None:
    """Accept-Encoding: one of those that both know."""
    answer = http.infer("simple", BODY, {"Accept-Encoding": accepted})
    assert answer.headers["content-encoding"] in accepted
    assert decoded(answer)["model_name"] == "simple"


@pytest.mark.parametrize("accepted", ["br", "identity", "gzip;q=0"])
def test_client_that_accepts_no_known_encoding(http: Http, accepted: str) -> None:
    """Accept-Encoding: without one that both know the answer is as it is."""
    answer = http.infer("simple", BODY, {"Accept-Encoding": accepted})
    assert answer.headers.get("content-encoding", "identity") == "identity"
    assert answer.json["model_name"] == "simple"


def test_identity(http: Http) -> None:
    """Content-Encoding: identity is none."""
    assert http.infer("simple", BODY, {"Content-Encoding": "identity"}).json["model_name"] == "simple"


@pytest.mark.parametrize("encoding", ["br", "nothing"])
def test_unknown_encoding(http: Http, encoding: str) -> None:
    """Content-Encoding: refused where it is not known, with what is."""
    answer = http.infer("simple", BODY, {"Content-Encoding": encoding})
    assert answer.error(*UNKNOWN_ENCODING)
    assert {name.strip() for name in answer.headers["accept-encoding"].split(",")} >= {"gzip", "deflate"}


@encodings
@pytest.mark.parametrize("cut", [0, 12])
def test_body_that_is_not_compressed_so(http: Http, encoding: str, cut: int) -> None:
    """Content-Encoding: a body that is not what it says, or not all of it, is refused."""
    body = COMPRESS[encoding](BODY)[:-cut] if cut else BODY
    assert http.infer("simple", body, {"Content-Encoding": encoding}).error(*MALFORMED)


def test_error_can_be_read(http: Http) -> None:
    """Errors: clients that accept compression read them all the same."""
    answer = http.infer("nope", BODY, {"Accept-Encoding": "gzip"})
    content = (
        DECOMPRESS[answer.headers["content-encoding"]](answer.body)
        if "content-encoding" in answer.headers
        else answer.body
    )
    assert "unknown model" in json.loads(content)["error"]
