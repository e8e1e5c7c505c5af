from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from tests.repositories import graph, picture, write_model
from tests.service.launch import ROOT, RunningService, command, run_to_end, running


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """`colours`; `contrary`, which takes the channel with the least for the answer; `numbers`, of other labels;
    `broken`, which cannot be served."""
    repository = tmp_path_factory.mktemp("several")
    write_model(repository)
    contrary = write_model(repository, "contrary", golden=False)
    onnx.save(graph(8, scale=-10 / 255), contrary / "1" / "model.onnx")
    (write_model(repository, "numbers") / "labels.txt").write_text("one\ntwo\nthree\n")
    (write_model(repository, "broken") / "config.pbtxt").write_text("max_batch_size: many")
    with running(repository) as service:
        yield service


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two red ones of three, and one that no model has a label for."""
    for name, colour in {"red/1.png": "red", "red/2.png": "blue", "blue/1.png": "blue", "other/1.png": "red"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(colour, image_format="PNG"))
    return tmp_path


def compare(service: RunningService, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_to_end("compare", "--server", service.grpc, *map(str, arguments))


def test_every_model_is_asked_and_judged_by_the_folder(several: RunningService, pictures: Path) -> None:
    ended = compare(several, pictures)
    assert (ended.returncode, ended.stderr) == (0, "")
    header, *rows, last = ended.stdout.splitlines()
    assert header.split() == ["colours", "contrary", "numbers"]
    at = [header.index(name) for name in ("colours", "contrary", "numbers")]
    cells = {
        Path(row[: at[0]].strip()).relative_to(pictures).as_posix(): [
            row[at[0] : at[1]].strip(),
            row[at[1] : at[2]].strip(),
            row[at[2] :].strip(),
        ]
        for row in rows
    }
    # Of two channels with nothing, the least is the first.
    assert cells == {
        "blue/1.png": ["+ blue", "- red", "three"],
        "other/1.png": ["red", "green", "one"],
        "red/1.png": ["+ red", "- green", "one"],
        "red/2.png": ["- blue", "+ red", "three"],
    }
    assert last.split() == ["right", "66.7", "%", "33.3", "%"]


def test_where_no_folder_is_a_label_nobody_is_right(several: RunningService, pictures: Path) -> None:
    header, row = compare(several, pictures / "other").stdout.splitlines()
    assert header.split() == ["colours", "contrary", "numbers"]
    assert row.split()[1:] == ["red", "green", "one"]


def test_json_for_programs(several: RunningService, pictures: Path) -> None:
    ended = compare(several, "--json", pictures / "red" / "2.png", pictures / "blue")
    *lines, last = map(json.loads, ended.stdout.splitlines())
    assert [line["file"] for line in lines] == [str(pictures / "red/2.png"), str(pictures / "blue/1.png")]
    assert [line["models"]["colours"]["label"] for line in lines] == ["blue", "blue"]
    assert [line["models"]["colours"]["right"] for line in lines] == [False, True]
    assert all(line["models"]["colours"]["probability"] > 0.99 for line in lines)
    assert {line["models"]["numbers"]["right"] for line in lines} == {None}
    assert last == {
        "right": {
            "colours": {"judged": 2, "right": 1},
            "contrary": {"judged": 2, "right": 1},
            "numbers": {"judged": 0, "right": 0},
        }
    }


def test_a_picture_that_fails_is_not_right(several: RunningService, pictures: Path) -> None:
    (pictures / "red" / "2.png").write_bytes(b"nonsense")
    ended = compare(several, "--json", pictures / "red", pictures / "red" / "missing.png")
    assert ended.returncode == 1
    good, nonsense, missing, last = map(json.loads, ended.stdout.splitlines())
    assert good["models"]["colours"]["right"] is True
    assert nonsense["models"]["colours"]["error"].startswith("INVALID_ARGUMENT: not an image")
    assert missing["models"]["numbers"] == {"error": "cannot be read: No such file or directory"}
    assert last["right"]["colours"] == {"judged": 3, "right": 1}
    assert "error" in compare(several, pictures / "red").stdout


def test_one_line_where_there_is_nothing_to_compare(several: RunningService, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = compare(several, tmp_path / "empty")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"error: no image files in {tmp_path / 'empty'}\n"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ended = run_to_end("compare", "--server", f"127.0.0.1:{port}", str(pictures))
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: UNAVAILABLE: ")
    assert ended.stderr.count("\n") == 1


def test_a_service_without_classifiers(pictures: Path, tmp_path: Path) -> None:
    (write_model(tmp_path / "repository", "broken") / "config.pbtxt").write_text("max_batch_size: many")
    with running(tmp_path / "repository") as service:
        ended = compare(service, pictures)
    assert (ended.returncode, ended.stderr) == (1, "error: the service has no image classifier that is ready\n")


def test_a_reader_that_has_seen_enough_is_no_traceback(several: RunningService, pictures: Path) -> None:
    arguments = command("compare", "--server", several.grpc, str(pictures))
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(60) == 1
