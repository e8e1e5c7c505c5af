from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.config_text import replace_text, with_parameters

TEXT = """\
# rollout.current, and parameters { in a comment
name: "colours"  # the name
input { name: "parameters" dims: [ 1 ] }
parameters {
  # what was tried
  key: "rollout.current"
  value { string_value: "1" }
}  # pinned
parameters: { key: 'other }' value: < string_value: "it's \\" {" > }
# the end
"""


def test_a_parameter_is_changed_where_it_stands() -> None:
    edited = with_parameters(TEXT, {"rollout.current": "2"})
    assert edited.splitlines()[:3] == TEXT.splitlines()[:3]
    assert edited.splitlines()[-3:] == ["}  # pinned", *TEXT.splitlines()[-2:]]
    assert '"rollout.current"\n  value { string_value: "2" }' in edited


def test_a_parameter_is_added_at_the_end_and_taken_away() -> None:
    added = with_parameters(TEXT, {"rollout.canary": "2", "rollout.canary_share": "0.1"})
    assert added.startswith(TEXT)
    assert with_parameters(added, {"rollout.canary": None, "rollout.canary_share": None}) == TEXT
    assert with_parameters(TEXT, {"rollout.canary": None}) == TEXT


def test_text_without_an_end_of_line_and_no_text_at_all() -> None:
    block = 'parameters {\n  key: "a"\n  value { string_value: "1" }\n}\n'
    assert with_parameters('name: "x"', {"a": "1"}) == 'name: "x"\n' + block
    assert with_parameters("", {"a": "1"}) == block


def test_line_ends_are_those_of_the_text() -> None:
    text = TEXT.replace("\n", "\r\n")
    for changes in ({"rollout.current": "2"}, {"rollout.current": None}, {"a": "1"}):
        edited = with_parameters(text, changes)
        assert edited.replace("\r\n", "\n") == with_parameters(TEXT, changes)
        assert edited.count("\n") == edited.count("\r\n")


def test_a_parameter_in_the_middle_of_a_line() -> None:
    line = 'name: "x" parameters { key: "a" value { string_value: "1" } } max_batch_size: 4\n'
    assert with_parameters(line, {"a": None}) == 'name: "x"  max_batch_size: 4\n'


@pytest.mark.parametrize(
    "text",
    [
        'parameters: [ { key: "a" value { string_value: "1" } } ]',
        'parameters < key: "a" value < string_value: "1" > >',
    ],
)
def test_other_forms_of_one(text: str) -> None:
    assert with_parameters(text, {"a": None}) == ""
    assert with_parameters(text, {"c": None}) == text


def test_a_list_of_several_is_refused() -> None:
    text = 'parameters [ { key: "a" value { string_value: "1" } }, { key: "b" value { string_value: "1" } } ]'
    with pytest.raises(ValueError, match=r"a, b: must each be written as `parameters \{ … \}` of its own"):
        with_parameters(text, {"a": "2"})
    assert with_parameters(text, {"c": None}) == text


def test_what_is_no_config() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        with_parameters("nonsense: 1", {"a": "1"})


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text("old")
    path.chmod(0o640)
    with path.open() as reader:
        replace_text(path, "new")
        assert reader.read() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")
def test_a_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text("old")
    path.chmod(0o640)
    os.chown(path, 12345, 23456)
    replace_text(path, "new\r\n")
    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (12345, 23456, 0o640)
    assert path.read_bytes() == b"new\r\n"


def test_a_file_that_cannot_keep_its_owner_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, user: int, group: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    path = tmp_path / "config.pbtxt"
    path.write_text("old")
    others = os.stat_result((*path.stat()[:4], 12345, 23456, *path.stat()[6:]))
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda asked, **how: others if asked == path else stat(asked, **how))
    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(OSError, match="must go on belonging to user 12345, group 23456: Operation not"):
        replace_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
