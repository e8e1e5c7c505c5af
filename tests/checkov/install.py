"""Install checkov, which looks for what is unsafe in manifests: `python -m tests.checkov.install`."""

from __future__ import annotations

from tests.tool_environment import ToolEnvironment

ENVIRONMENT = ToolEnvironment("checkov", "checkov")

if __name__ == "__main__":
    ENVIRONMENT.install()
