"""A repository that is fetched before the service starts is the one that was published, or there is no start."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.manifests import KUBERNETES
from tests.repositories import write_model

pytestmark = pytest.mark.system

FOLDER = KUBERNETES / "components" / "repository-sync"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A repository with its checksums, as the component's comment says to make them."""
    if not shutil.which("rclone"):
        pytest.skip("rclone is not installed")
    folder = tmp_path / "published"
    write_model(folder)
    (folder / "colours" / "a name with spaces").write_text("and what is in it")
    (line,) = (text for text in (FOLDER / "kustomization.yaml").read_text().splitlines() if "sha256sum >" in text)
    subprocess.run(["sh", "-c", line.removeprefix("#")], cwd=folder, check=True)
    return folder


@pytest.fixture
def web(published: Path) -> Iterator[str]:
    """That repository's address for rclone, on a web server."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(published.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f":http,url='http://127.0.0.1:{server.server_port}/':published"
        server.shutdown()
        serving.join()


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "SHA256SUMS").read_bytes()).hexdigest()


def sync(source: str, sha256: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The init container's command, in a folder that is empty."""
    folder.mkdir()
    (folder.parent / "tmp").mkdir()
    environment = os.environ | {
        "REPOSITORY_SOURCE": source,
        "REPOSITORY_SHA256": sha256,
        "REPOSITORY_FOLDER": str(folder),
        "RCLONE_CONFIG": "",
        "RCLONE_RETRIES": "1",
        "TMPDIR": str(folder.parent / "tmp"),
    }
    command = ["/bin/sh", str(FOLDER / "sync.sh")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_published_arrives(published: Path, web: str, tmp_path: Path) -> None:
    for number, source in enumerate((f":local:{published}", web)):
        folder = tmp_path / str(number) / "models"
        folder.parent.mkdir()
        ended = sync(source, digest(published), folder)
        assert ended.returncode == 0, ended.stderr
        assert files(folder) == files(published)


def test_what_is_not_listed_does_not(published: Path, tmp_path: Path) -> None:
    (published / "colours" / "more").write_text("more")
    assert sync(f":local:{published}", digest(published), tmp_path / "models").returncode == 0
    assert not (tmp_path / "models" / "colours" / "more").exists()


def test_a_file_that_was_changed_is_refused(published: Path, web: str, tmp_path: Path) -> None:
    labels = published / "colours" / "labels.txt"
    labels.write_bytes(labels.read_bytes().replace(b"red", b"der"))
    ended = sync(web, digest(published), tmp_path / "models")
    assert ended.returncode == 1
    assert "colours/labels.txt: FAILED" in ended.stdout
    assert "is not what SHA256SUMS says" in ended.stderr


def test_a_file_that_is_missing_is_refused(published: Path, web: str, tmp_path: Path) -> None:
    (published / "colours" / "labels.txt").unlink()
    assert sync(web, digest(published), tmp_path / "models").returncode != 0


def test_checksums_that_were_changed_are_refused(published: Path, tmp_path: Path) -> None:
    expected = digest(published)
    with (published / "SHA256SUMS").open("a") as sums:
        sums.write(f"{hashlib.sha256(b'').hexdigest()}  empty\n")
    ended = sync(f":local:{published}", expected, tmp_path / "models")
    assert ended.returncode == 1
    assert "is not the one with the digest" in ended.stderr
    assert files(tmp_path / "models").keys() == {"SHA256SUMS"}
