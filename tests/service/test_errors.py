from __future__ import annotations

import pytest

from service.errors import MAX_TEXT_BYTES, InvalidInputError, ModelError


@pytest.mark.parametrize("text", ["plain", "é 😀 \u4e2d", ""])
def test_a_text_is_shown_as_it_is(text: str) -> None:
    assert str(InvalidInputError(text)) == text


@pytest.mark.parametrize("letter", ["x", "é", "😀"])
def test_a_long_text_is_cut(letter: str) -> None:
    shown = str(InvalidInputError("input '" + letter * 10_000))
    assert shown.startswith("input '" + letter * 400)
    assert shown.endswith(letter + " …")
    assert len(shown.encode()) <= MAX_TEXT_BYTES + len(" …".encode())


def test_a_client_writes_no_lines_into_the_log() -> None:
    assert str(InvalidInputError("a\r\nERROR all is lost\x1b[2J\x85\u2028")) == (
        "a\\r\\nERROR all is lost\\x1b[2J\\x85\\u2028"
    )


def test_a_lone_surrogate_can_be_sent() -> None:
    assert str(InvalidInputError("a\ud800")) == "a\\ud800"


def test_what_a_model_is_not_served_for_can_be_sent_too() -> None:
    assert str(ModelError("a\ud800")) == "a\\ud800"
