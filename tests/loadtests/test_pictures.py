from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.overload.conclusion import conclude
from loadtests.pictures import FOLDER, main
from loadtests.report.result import Load, Result, to_json
from tests.loadtests.made_up import made_up_result, made_up_run, made_up_sweep
from tests.loadtests.test_overload import STAGES, outcomes
from tests.loadtests.test_peers import RESULT as COMPARISON
from tests.loadtests.test_report_page import SEARCH


def drawn(tmp_path: Path, result: Result) -> dict[str, str]:
    (tmp_path / "result.json").write_text(to_json(result))
    assert main([str(tmp_path / "result.json"), "--into", str(tmp_path / "pictures")]) == 0
    return {file.name: file.read_text() for file in (tmp_path / "pictures").iterdir()}


def words(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter() if element.tag.endswith("}text")]


def test_a_comparison_has_two_pictures_of_each_model(tmp_path: Path) -> None:
    COMPARISON.write(tmp_path / "peers.json")
    assert main([str(tmp_path / "peers.json"), "--into", str(tmp_path)]) == 0
    throughput, processor_time = (
        words((tmp_path / f"peers-tiny-{what}.svg").read_text()) for what in ("throughput", "processor-time")
    )
    for server in ("Fovea, HTTP", "Fovea, gRPC", "Fovea native, gRPC", "Triton, gRPC", "mosec, HTTP"):
        assert server in throughput
        assert server in processor_time
    assert {"connections", "requests/s", "1", "64"} <= set(throughput)
    assert "processor time of a request, µs, 64 connections" in processor_time


@pytest.mark.parametrize(("images_per_s", "there"), [(3000.0, True), (9000.0, False)])
def test_a_ceiling_that_is_far_above_is_left_out(tmp_path: Path, images_per_s: float, there: bool) -> None:
    ceilings = tuple(replace(each, images_per_s=images_per_s) for each in COMPARISON.ceilings)
    replace(COMPARISON, ceilings=ceilings).write(tmp_path / "peers.json")
    assert main([str(tmp_path / "peers.json"), "--into", str(tmp_path)]) == 0
    assert ("ONNX Runtime alone" in words((tmp_path / "peers-tiny-throughput.svg").read_text())) == there


def test_a_report_has_one_of_each_protocol(tmp_path: Path) -> None:
    pictures = drawn(tmp_path, made_up_sweep())
    assert pictures.keys() == {"latency-against-throughput-http.svg", "latency-against-throughput-grpc.svg"}
    assert {"answered, images/s", "latency, ms", "p50", "p99"} <= set(
        words(pictures["latency-against-throughput-http.svg"])
    )


def test_a_search_and_an_overload_have_their_own(tmp_path: Path) -> None:
    runs = [made_up_run(load=Load("open", 20.0 * 2**step), p50_ms=3.0 * 2**step) for step in range(5)]
    assert "p99 latency, ms" in words(drawn(tmp_path, made_up_result(*runs, search=SEARCH))["search-http.svg"])
    overload = conclude("HTTP", STAGES, outcomes(), peak_per_s=40.0)
    svg = drawn(tmp_path, made_up_result(*runs, overload=overload))["overload-http.svg"]
    assert "refused, p99" in words(svg)


def test_a_picture_has_its_own_colours_and_asks_for_nothing(tmp_path: Path) -> None:
    for svg in drawn(tmp_path, made_up_sweep()).values():
        assert not re.search("var\\(|#0a0b0c|#8d8e8f|#f7f8f9|@import|url\\((?!#)", svg)
        assert len(svg) < 120_000


def test_the_same_result_is_the_same_picture(tmp_path: Path) -> None:
    assert drawn(tmp_path, made_up_sweep()) == drawn(tmp_path, made_up_sweep())


def test_what_is_no_result_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("result.json", "peers.json"):
        (tmp_path / name).write_text("{}")
        with pytest.raises(SystemExit):
            main([str(tmp_path / name), "--into", str(tmp_path)])
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nothing" / "peers.json")])
    assert "No such file" in capsys.readouterr().err


def test_the_pictures_of_the_docs_are_small_and_shown() -> None:
    documents = "".join(file.read_text() for file in FOLDER.parent.glob("*.md"))
    files = list(FOLDER.iterdir())
    assert {f"pictures/{file.name}" for file in files} == set(re.findall(r"\]\((pictures/[^)]+)\)", documents))
    assert all(file.stat().st_size < 120_000 for file in files)
