"""A result as a short page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.report.levels import levels_of
from loadtests.report.result import Result
from loadtests.report.tables import facts, reading, tables


def to_markdown(result: Result) -> str:
    lines = [f"# {result.title}", "", *(f"- {name}: {fact}" for name, fact in facts(result).items()), ""]
    if result.found:
        lines += [result.found.reason, "", result.found.method, ""]
    lines += [" ".join(reading(result)), ""]
    for table in tables(levels_of(result.runs)):
        rule = ["---", "---", *["---:"] * (len(table.headings) - 2)]
        lines += [f"## {table.title}", "", _row(table.headings), _row(rule), *map(_row, table.rows), ""]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |"
