from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests.report.result import PERCENTILES, Load, Search, percentiles, read_result, to_json
from tests.loadtests.made_up import made_up_result, made_up_run, made_up_sweep

SEARCH = Search("gRPC", 20.0, 300.0, 290.0, None, 0.75, 0.05, "found", "by trying")


def test_json_and_back(tmp_path: Path) -> None:
    sweep = made_up_sweep()
    search = made_up_result(made_up_run("gRPC", Load("open", 320.5)), search=SEARCH)
    for result in (sweep, search):
        (tmp_path / "result.json").write_text(to_json(result))
        assert read_result(tmp_path) == result
        assert read_result(tmp_path / "result.json") == result
    assert json.loads((tmp_path / "result.json").read_text())["format"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"\xff", "is not JSON"),
        (b"[]", "has format None, and this version reads format 1"),
        (b'{"format": 2}', "has format 2"),
        (b'{"format": 1, "time": "now"}', "Field required"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_result(tmp_path)


def test_a_percentile_is_the_time_that_the_share_took_at_most() -> None:
    found = percentiles([float(time_ms) for time_ms in range(1000, 0, -1)])
    assert list(found) == list(PERCENTILES)
    assert [found[share] for share in (1, 50, 99, 99.5, 99.9, 100)] == [10, 500, 990, 995, 999, 1000]
    assert percentiles([]) == {}


def test_a_load_in_words() -> None:
    assert str(Load("closed", 16)) == "16 in flight"
    assert [str(Load("open", rate)) for rate in (2.5, 56.57, 12345.6)] == ["2.5/s", "56.6/s", "12,346/s"]
