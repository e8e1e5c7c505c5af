"""The files that a load test leaves."""

from __future__ import annotations

from pathlib import Path

from loadtests.report.markdown import to_markdown
from loadtests.report.page import render
from loadtests.report.result import FILE_NAME, Result, to_json


def write_files(result: Result, folder: Path) -> None:
    """The result as JSON, as a page and as Markdown."""
    (folder / FILE_NAME).write_text(to_json(result))
    (folder / "report.html").write_text(render(result))
    (folder / "report.md").write_text(to_markdown(result))
