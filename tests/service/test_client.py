from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

from tests.repositories import picture
from tests.service.launch import ROOT, RunningService, command, run_to_end


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "b.jpg").write_bytes(picture("blue"))
    (tmp_path / "a.PNG").write_bytes(picture("red", image_format="PNG"))
    (tmp_path / "deep" / "er" / "c.webp").write_bytes(picture("lime", image_format="WEBP"))
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


def classify(service: RunningService, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_to_end("classify", "--server", service.grpc, *map(str, arguments))


def test_a_file_is_a_line_for_people(service: RunningService, pictures: Path) -> None:
    ended = classify(service, pictures / "b.jpg")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{pictures / 'b.jpg'}  blue 100.0 %\n"


def test_a_folder_is_searched_for_images(service: RunningService, pictures: Path) -> None:
    ended = classify(service, pictures)
    assert ended.returncode == 0
    rows = [line.split()[:2] for line in ended.stdout.splitlines()]
    expected = {"a.PNG": "red", "b.jpg": "blue", "deep/er/c.webp": "green"}
    assert rows == [[str(pictures / name), label] for name, label in expected.items()]


def test_the_columns_of_a_table_are_aligned(service: RunningService, pictures: Path) -> None:
    lines = classify(service, pictures).stdout.splitlines()
    assert len({line.index(label) for line, label in zip(lines, ("red", "blue", "green"), strict=True)}) == 1


def test_more_predictions(service: RunningService, pictures: Path) -> None:
    line = classify(service, "--top-k", "2", pictures / "b.jpg").stdout
    assert line.count("%") == 2


def test_json_for_programs(service: RunningService, pictures: Path) -> None:
    ended = classify(service, "--json", "--version", "1", "--model", "colours", pictures)
    assert (ended.returncode, ended.stderr) == (0, "")
    answers = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [answer["file"] for answer in answers] == [str(pictures / n) for n in ("a.PNG", "b.jpg", "deep/er/c.webp")]
    for answer, (label, index) in zip(answers, (("red", 0), ("blue", 2), ("green", 1)), strict=True):
        assert (answer["model"], answer["version"]) == ("colours", "1")
        (prediction,) = answer["predictions"]
        assert (prediction["label"], prediction["index"]) == (label, index)
        assert prediction["probability"] > 0.99
        assert answer["timings"]["total_us"] > 0


def test_a_file_that_fails_does_not_stop_the_others(service: RunningService, pictures: Path) -> None:
    (pictures / "aa.jpg").write_bytes(b"nonsense")
    ended = classify(service, "--json", pictures, pictures / "missing.jpg")
    assert ended.returncode == 1
    answers = [json.loads(line) for line in ended.stdout.splitlines()]
    errors = {Path(answer["file"]).name: answer["error"] for answer in answers if "error" in answer}
    assert errors.keys() == {"aa.jpg", "missing.jpg"}
    assert errors["aa.jpg"].startswith("INVALID_ARGUMENT: not an image")
    assert errors["missing.jpg"] == "cannot be read: No such file or directory"
    assert len(answers) == 5
    assert "error  cannot be read" in classify(service, pictures / "missing.jpg").stdout


def test_an_unknown_model(service: RunningService, pictures: Path) -> None:
    ended = classify(service, "--model", "cats", pictures / "b.jpg")
    assert ended.returncode == 1
    assert "NOT_FOUND: Request for unknown model: 'cats' is not found" in ended.stdout


def test_a_folder_without_images(service: RunningService, tmp_path: Path) -> None:
    ended = classify(service, tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == f"error: no image files in {tmp_path}\n"


def test_no_service(pictures: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ended = run_to_end("classify", "--server", f"127.0.0.1:{port}", str(pictures / "b.jpg"))
    assert ended.returncode == 1
    assert "UNAVAILABLE: " in ended.stdout
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("top_k", ["-1", "0", "two", str(2**32)])
def test_a_wrong_top_k(service: RunningService, pictures: Path, top_k: str) -> None:
    ended = classify(service, f"--top-k={top_k}", pictures / "b.jpg")
    assert ended.returncode == 2
    assert "--top-k" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_many_files_keep_their_order(service: RunningService, tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number:03}.jpg").write_bytes(picture(["red", "lime", "blue"][number % 3]))
    ended = classify(service, "--json", tmp_path)
    answers = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [a["predictions"][0]["label"] for a in answers] == [["red", "green", "blue"][n % 3] for n in range(100)]


def test_help_and_version() -> None:
    assert "classify" in run_to_end("--help").stdout
    assert run_to_end("--version").stdout.count(".") == 2
    nothing = run_to_end()
    assert nothing.returncode == 2
    assert "usage: fovea" in nothing.stderr


def test_a_reader_that_has_seen_enough_is_no_traceback(service: RunningService, pictures: Path) -> None:
    arguments = command("classify", "--server", service.grpc, str(pictures))
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(60) == 1
