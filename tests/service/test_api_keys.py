"""The file of API keys, and who is let in by it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.api_keys import ApiKeys, Right, line_of, new_key
from service.errors import ForbiddenError, StartError, UnauthenticatedError
from tests.service.launch import run_to_end

DIGEST = "0" * 64


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def bearer(key: str) -> str:
    return f"Bearer {key}"


def test_keys_have_the_rights_of_their_lines(file: Path) -> None:
    both, one = new_key(), new_key()
    lines = ["# who", "", line_of("both", (Right.INFER, Right.CONTROL), both), line_of("one", (Right.INFER,), one)]
    file.write_text("\n".join(lines))
    keys = ApiKeys(file)
    for right in Right:
        keys.require(right, bearer(both))
    keys.require(Right.INFER, f"bearer  {one} ")
    assert keys.allow(Right.INFER, bearer(one))
    assert not keys.allow(Right.CONTROL, bearer(one))
    with pytest.raises(ForbiddenError, match="'one' does not have the right 'control'"):
        keys.require(Right.CONTROL, bearer(one))


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Basic {}", "{}", "Bearer {}x", "Bearer \udcff"])
def test_what_is_no_key_is_refused_without_being_repeated(file: Path, authorization: str) -> None:
    key = new_key()
    file.write_text(line_of("one", (Right.INFER,), key))
    with pytest.raises(UnauthenticatedError) as raised:
        ApiKeys(file).require(Right.INFER, authorization.format(key))
    assert key not in str(raised.value)


def test_the_file_is_read_again_and_kept_where_it_is_wrong(file: Path) -> None:
    old, new = new_key(), new_key()
    file.write_text(line_of("old", (Right.INFER,), old))
    keys = ApiKeys(file)
    for wrong in ("", "nonsense"):
        file.write_text(wrong)
        with pytest.raises(StartError):
            keys.reload()
        assert keys.allow(Right.INFER, bearer(old))
    file.write_text(line_of("new", (Right.INFER,), new))
    keys.reload()
    assert [keys.allow(Right.INFER, bearer(key)) for key in (old, new)] == [False, True]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a infer", "must be a name, rights and a hash"),
        (f"a infer {DIGEST} more", "must be a name, rights and a hash"),
        (f"ä infer {DIGEST}", "cannot be read"),
        (f"a/b infer {DIGEST}", "the name must have"),
        (f"a all {DIGEST}", "rights must be infer or control"),
        (f"a infer, {DIGEST}", "rights must be infer or control"),
        (f"a infer {DIGEST[1:]}", "64 digits"),
        (f"a infer {DIGEST}\na infer {DIGEST}", "line 2: a second key 'a'"),
        ("# none", "no keys in it"),
    ],
)
def test_a_wrong_file_is_named(file: Path, line: str, words: str) -> None:
    file.write_text(line)
    with pytest.raises(StartError, match=words) as raised:
        ApiKeys(file)
    assert str(raised.value).startswith(f"FOVEA_API_KEYS={file}")


def test_a_key_in_place_of_its_hash_is_not_repeated(file: Path) -> None:
    key = new_key()
    file.write_text(f"a infer {key}")
    with pytest.raises(StartError) as raised:
        ApiKeys(file)
    assert key not in str(raised.value)


def test_no_file_is_a_failed_start(file: Path) -> None:
    ended = run_to_end("serve", api_keys=file)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"error: FOVEA_API_KEYS={file}: cannot be read")


# fovea key


def test_the_command_makes_a_key_and_its_line(file: Path) -> None:
    made = [run_to_end("key", "tests", "--rights", "infer,control") for _ in range(2)]
    found = []
    for ended in made:
        assert (ended.returncode, ended.stderr) == (0, "")
        (key,) = re.findall(r"^  (fovea_[\w-]{43})$", ended.stdout, re.MULTILINE)
        (line,) = re.findall(r"^  (tests control,infer [0-9a-f]{64})$", ended.stdout, re.MULTILINE)
        file.write_text(line)
        ApiKeys(file).require(Right.CONTROL, bearer(key))
        found.append(key)
    assert found[0] != found[1]


@pytest.mark.parametrize("arguments", [["a b"], ["a", "--rights", "everything"]])
def test_the_command_says_what_there_can_be(arguments: list[str]) -> None:
    ended = run_to_end("key", *arguments)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: ")
