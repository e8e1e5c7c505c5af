"""What tells a browser to be careful with a page of ours."""

from __future__ import annotations

import base64
import hashlib
import re

INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def page_headers(page: str) -> dict[str, str]:
    """Nothing but the page's own scripts is run, nothing from elsewhere is loaded, no other page may frame it."""
    hashes = [hashlib.sha256(script.encode()).digest() for script in INLINE_SCRIPT.findall(page)]
    scripts = "".join(f" 'sha256-{base64.b64encode(digest).decode()}'" for digest in hashes)
    policy = (
        "default-src 'none'",
        f"script-src 'self'{scripts}",
        "style-src 'self' 'unsafe-inline'",  # Swagger UI styles its elements one by one.
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return {
        "content-security-policy": "; ".join(policy),
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
    }
