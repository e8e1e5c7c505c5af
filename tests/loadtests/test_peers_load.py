from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.h2load import connections, grpc_frame, parse_body_bytes, parse_h2load, parse_log

OUTPUT = """\
finished in 2.00s, 1201.50 req/s, 149.01KB/s
requests: 2403 total, 2467 started, 2403 done, 2403 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 2403 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 298.02KB (305173) total, 42.48KB (43501) headers (space savings 83.33%), 204.16KB (209061) data
"""


def test_bytes_of_the_bodies() -> None:
    assert parse_h2load(OUTPUT).succeeded == 2403
    assert parse_body_bytes(OUTPUT) == 209061
    with pytest.raises(ValueError, match="bytes"):
        parse_body_bytes("finished")


def test_times_of_the_requests_that_succeeded(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("1795437252325272\t200\t13379\n1795437252325273\t503\t12\n1795437252325274\t204\t7\n")
    assert parse_log(tmp_path / "log").tolist() == [13379, 7]


def test_a_log_of_no_request(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    assert parse_log(tmp_path / "log").tolist() == []


def test_connections_have_one_request_each() -> None:
    assert connections(64, http1=True) == ("--h1", "--clients", "64")
    assert connections(64, http1=False) == ("--clients", "64", "--max-concurrent-streams", "1")


def test_a_frame_is_a_flag_the_length_and_the_message() -> None:
    assert grpc_frame(b"abc") == b"\0\0\0\0\3abc"
