"""What the papers say of the program is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from loadtests.faults.faults import FAULTS
from service.settings import Settings

TESTS = Path(__file__).resolve().parent
CONFIGURATION = TESTS.parent / "docs" / "configuration.md"
OPERATIONS = TESTS.parent / "docs" / "operations.md"
RULES = TESTS.parent / "deploy" / "monitoring" / "rules.yaml"
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


def table_of(section: str) -> list[list[str]]:
    """The cells of each row of the table in a section of the page on operations."""
    text = OPERATIONS.read_text().partition(f"## {section}\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in row.split("|")] for row in re.findall(r"^\|(.*)\|$", text, re.MULTILINE)[2:]]


def test_each_alert_has_its_line() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    alerts = [f"`{rule['alert']}`" for group in groups for rule in group["rules"] if "alert" in rule]
    rows = table_of("When an alert fires")
    assert [row[0] for row in rows] == alerts
    assert all(len(row) == 4 and all(row) for row in rows)


def test_each_fault_is_in_the_table() -> None:
    rows = table_of("Faults")
    assert [row[0] for row in rows] == [fault.title for fault in FAULTS.values()]
    losing = [fault.title for fault in FAULTS.values() if fault.loses]
    assert {row[0] for row in rows if row[-1] != "**0**"} <= set(losing)
