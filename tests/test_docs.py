"""What the papers say of the program is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.settings import Settings

CONFIGURATION = Path(__file__).resolve().parent.parent / "docs" / "configuration.md"
IN_WORDS = {
    "model_repository": "the checkout's `model_repository`",
    "default_model": "unset",
    "grpc_max_connection_age_s": "unset",
    "grpc_max_connection_age_grace_s": "unset",
    "trace_file": "unset",
    "otlp_endpoint": "unset",
    "triton_address": "unset",
}


def documented() -> dict[str, str]:
    """Variable and default of each row of the table."""
    return dict(re.findall(r"^\| `(FOVEA_\w+)` \| (.*?) \|", CONFIGURATION.read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    default = Settings.model_fields[name].default
    assert documented()[f"FOVEA_{name.upper()}"] == IN_WORDS.get(name, f"`{default}`")


def test_every_documented_setting_exists() -> None:
    mentioned = set(re.findall(r"FOVEA_\w+", CONFIGURATION.read_text())) - {"FOVEA_"}
    assert mentioned == {f"FOVEA_{name.upper()}" for name in Settings.model_fields}
