"""The page that tries the API out, in a real browser."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.service.launch import RunningService

OFFLINE = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]


@pytest.mark.system
def test_the_page_shows_every_operation(service: RunningService, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs a browser: chromium is not installed")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", *OFFLINE]
    # Every other host is unknown to this browser: what the page shows, the service gave.
    command += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={tmp_path}"]
    command += ["--virtual-time-budget=10000", "--dump-dom", f"{service.http}/docs"]
    page = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    description = httpx.get(f"{service.http}/openapi.json").json()
    for path in description["paths"].values():
        for operation in path.values():
            (tag,) = operation["tags"]
            assert f'id="operations-{tag.replace(" ", "_")}-{operation["operationId"]}"' in page
    assert "Unable to render" not in page
