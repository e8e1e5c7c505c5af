from __future__ import annotations

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
