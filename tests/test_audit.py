"""The pinned dependencies, held against the advisories of the Python Package Index."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.audit.install import ENVIRONMENT
from tests.tool_environment import ROOT


@pytest.mark.system
@pytest.mark.timeout(600)
def test_no_pinned_dependency_is_known_to_be_vulnerable() -> None:
    if reason := ENVIRONMENT.missing():
        pytest.skip(reason)
    command = [
        str(ENVIRONMENT.program("pip-audit")),
        "--requirement",
        str(ROOT / "constraints.txt"),
        "--no-deps",
        "--disable-pip",
    ]
    options = ["--format", "json", "--progress-spinner", "off"]
    ended = subprocess.run([*command, *options], capture_output=True, text=True, timeout=500, check=False)
    if "connect" in ended.stderr.lower():
        pytest.skip(f"the advisories cannot be reached: {ended.stderr.strip()[-200:]}")
    assert ended.stdout, ended.stderr
    found = json.loads(ended.stdout)["dependencies"]
    # For pip-audit a package that the index says nothing of is no failure.
    if not [package for package in found if "vulns" in package]:
        pytest.skip(f"the index has no advisories: {found[0]['skip_reason']}")
    assert {package["name"]: package["vulns"] for package in found if package.get("vulns")} == {}
    assert {package["name"]: package["skip_reason"] for package in found if "skip_reason" in package} == {}
