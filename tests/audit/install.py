"""Install pip-audit, which knows what is vulnerable of what is pinned: `python -m tests.audit.install`."""

from __future__ import annotations

from tests.tool_environment import ToolEnvironment

ENVIRONMENT = ToolEnvironment("audit", "pip-audit", with_pip=True)

if __name__ == "__main__":
    ENVIRONMENT.install()
