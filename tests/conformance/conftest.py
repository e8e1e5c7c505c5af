"""The suite's options, and the two endpoints that every clause is put to.

    pytest tests/conformance --http http://127.0.0.1:8000 --grpc 127.0.0.1:8001 [--table FILE]

The server that is tested must serve the repository that `python -m tests.conformance.models FOLDER` writes, with all
of its models loaded, must let models be loaded and unloaded by request (Triton: --model-control-mode=explicit
--load-model=*), must allow system shared memory, and must see the same /dev/shm. What needs an extension that the
server's metadata does not announce is skipped. A clause's name is its file's and its test's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.wire import Grpc, Http

WORSE = ("passed", "skipped", "failed")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--http", metavar="URL", help="the tested server's HTTP endpoint")
    group.addoption("--grpc", metavar="ADDRESS", help="the tested server's gRPC endpoint")
    group.addoption("--table", metavar="FILE", type=Path, help="write which clauses passed, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "extension(name): needs an extension that the server's metadata announces")
    table: Path | None = config.getoption("table", None)
    if table:
        config.pluginmanager.register(Table(table))


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Without a server there is nothing to test; this is how `pytest tests` passes the suite by."""
    return None if config.getoption("http", None) and config.getoption("grpc", None) else True


class Table:
    """Each clause's outcome, in a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.clauses: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        clause = re.sub(r"^.*?(?:^|/)test_(\w+)\.py::test_", r"\1/", report.nodeid)
        outcomes = (report.outcome, self.clauses.get(clause, "passed"))
        self.clauses[clause] = max(outcomes, key=WORSE.index)

    def pytest_sessionfinish(self) -> None:
        self.file.write_text(json.dumps(self.clauses, indent=2) + "\n")


@pytest.fixture(scope="session")
def http(request: pytest.FixtureRequest) -> Http:
    return Http(request.config.getoption("http"))


@pytest.fixture(scope="session")
def grpc(request: pytest.FixtureRequest) -> Iterator[Grpc]:
    endpoint = Grpc(request.config.getoption("grpc"))
    with endpoint.channel:
        yield endpoint


@pytest.fixture(scope="session")
def extensions(http: Http) -> frozenset[str]:
    return frozenset(http.get("/v2").json["extensions"])


@pytest.fixture(autouse=True)
def _announced(request: pytest.FixtureRequest, extensions: frozenset[str]) -> None:
    for marker in request.node.iter_markers("extension"):
        if marker.args[0] not in extensions:
            pytest.skip(f"the server does not announce the extension {marker.args[0]!r}")
