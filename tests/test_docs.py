"""What the papers say of the program is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service.settings import Settings

TESTS = Path(__file__).resolve().parent
CONFIGURATION = TESTS.parent / "docs" / "configuration.md"
SECURITY = TESTS.parent / "docs" / "security.md"
IN_WORDS = {
    "api_keys": "unset",
    "cors_origins": "empty",
    "tls_certificate": "unset",
    "tls_client_ca": "unset",
    "tls_key": "unset",
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


def test_each_threat_has_tests_and_they_exist() -> None:
    table = SECURITY.read_text().partition("## Threats")[2].partition("\n## ")[0]
    rows = re.findall(r"^\|(.*)\|$", table, re.MULTILINE)[2:]
    assert len(rows) > 15
    tests = "".join(file.read_text() for file in TESTS.rglob("test_*.py"))
    existing = set(re.findall(r"^(?:async )?def (test_\w+)\(", tests, re.MULTILINE))
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row.split("|")[2])
        assert named, row
        assert set(named) <= existing
