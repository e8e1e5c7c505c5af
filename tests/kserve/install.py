"""Install KServe's Python client, and with it KServe's whole server: `python -m tests.kserve.install`."""

from __future__ import annotations

from tests.tool_environment import ToolEnvironment

ENVIRONMENT = ToolEnvironment("kserve", "KServe client")

if __name__ == "__main__":
    ENVIRONMENT.install()
