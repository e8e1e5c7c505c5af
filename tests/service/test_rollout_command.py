from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from service.__main__ import main
from service.model_config import read_proto
from service.rollout import Candidate, Rollout, declared
from tests.repositories import write_model

ALL = "dynamic_batching { } version_policy { all { } }"
TENTH = Fraction(1, 10)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path, versions=(1, 2, 3), golden=False, extra=ALL)


def rollout(model: Path, *words: str) -> Rollout:
    assert main(["rollout", str(model), *words]) == 0
    return declared(read_proto(model))


def test_from_canary_to_current_and_back(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (model / "config.pbtxt").read_text()
    assert rollout(model) == Rollout()
    assert capsys.readouterr().out == "current   the highest version that is ready\nserved    1, 2, 3\n"
    assert rollout(model, "pin", "1") == Rollout("1")
    assert rollout(model, "canary", "2") == Rollout("1", "", Candidate("2", TENTH))
    assert rollout(model, "canary", "2", "--share", "0.5") == Rollout("1", "", Candidate("2", Fraction(1, 2)))
    capsys.readouterr()
    assert rollout(model, "shadow", "3", "--share", "1").shadow == Candidate("3", Fraction(1))
    assert capsys.readouterr().out.splitlines()[:3] == [
        "current   version 1",
        "canary    version 2, share 0.5",
        "shadow    version 3, share 1.0",
    ]
    assert rollout(model, "promote") == Rollout("2", "1", None, Candidate("3", Fraction(1)))
    assert rollout(model, "rollback") == Rollout("2", "1")
    assert rollout(model, "rollback") == Rollout("1")
    assert (model / "config.pbtxt").read_text().startswith(before)


def test_a_model_s_folder_may_be_a_link(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = model.parent / "releases" / "42"
    elsewhere.parent.mkdir()
    model.rename(elsewhere)
    model.symlink_to(elsewhere)
    assert rollout(model, "pin", "1") == Rollout("1")
    monkeypatch.chdir(model.parent)
    for way in (Path(model.name), Path("..", model.parent.name, model.name), Path(model.name, "1", "..")):
        assert main(["rollout", str(way)]) == 0
    assert model.is_symlink()


def test_line_ends_stay_as_they_are(model: Path) -> None:
    config = model / "config.pbtxt"
    before = config.read_bytes().replace(b"\n", b"\r\n")
    config.write_bytes(before)
    assert rollout(model, "pin", "1") == Rollout("1")
    after = config.read_bytes()
    assert after.startswith(before)
    assert after.count(b"\n") == after.count(b"\r\n")


def test_a_canary_is_tried_against_what_was_highest(model: Path) -> None:
    assert rollout(model, "canary", "3").current == "2"


def test_what_becomes_current_is_on_trial_no_more(model: Path) -> None:
    rollout(model, "canary", "2")
    rollout(model, "shadow", "2")
    assert rollout(model, "promote") == Rollout("2", "3")
    assert rollout(model, "pin", "2") == Rollout("2", "3")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["canary"], "canary: must be followed by a version"),
        (["promote", "2"], "promote: must not be followed by a version"),
        (["pin", "1", "--share", "1"], "pin: --share belongs to canary and shadow"),
        (["canary", "4"], "canary 4: must be one of the versions that version_policy serves, 1, 2, 3"),
        (["canary", "1"], "canary 1: must be another version than the current one"),
        (["canary", "2", "--share", "2"], "--share '2': must be a number from 0 to 1, as 0.1"),
        (["promote"], "promote: there is no canary"),
        (["rollback"], "rollback: there is no canary, no shadow and no previous version"),
    ],
)
def test_steps_that_cannot_be_taken(
    model: Path, words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout(model, "pin", "1")
    before = (model / "config.pbtxt").read_bytes()
    assert main(["rollout", str(model), *words]) == 1
    assert reason in capsys.readouterr().err
    assert (model / "config.pbtxt").read_bytes() == before


def test_a_policy_that_serves_one_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path, versions=(1, 2), golden=False)
    assert main(["rollout", str(model), "canary", "2"]) == 1
    assert "version_policy must serve another version beside it" in capsys.readouterr().err
    assert main(["rollout", str(model), "pin", "1"]) == 1
    assert "pin 1: must be one of the versions that version_policy serves, 2 (" in capsys.readouterr().err


def test_no_such_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", str(tmp_path / "none")]) == 1
    assert "none: must be a model's folder in a model repository" in capsys.readouterr().err


def test_what_is_wrong_already_is_shown(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rollout(model, "pin", "1")
    config = model / "config.pbtxt"
    config.write_text(config.read_text().replace('string_value: "1"', 'string_value: "7"'))
    assert main(["rollout", str(model)]) == 1
    assert "rollout.current is 7: must be one of the versions" in capsys.readouterr().err
    assert rollout(model, "pin", "2").current == "2"


def test_a_model_without_a_config(tmp_path: Path) -> None:
    model = write_model(tmp_path, versions=(1,), golden=False)
    (model / "config.pbtxt").unlink()
    assert rollout(model, "pin", "1") == Rollout("1")
