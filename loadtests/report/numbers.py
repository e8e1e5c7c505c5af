"""Numbers as the report writes them: three digits, and all those before the point."""

from __future__ import annotations


def number(value: float) -> str:
    if value and abs(value) < 100:
        return f"{value:#.3g}".rstrip(".")
    return f"{value:,.0f}"


def rate_text(per_s: float) -> str:
    """A rate or a count that someone chose: without zeros behind the point."""
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.3g}"
