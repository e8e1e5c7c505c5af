"""Web pages of other origins, which browsers keep from an API that does not name them."""

from __future__ import annotations

import re

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from service.errors import StartError

ORIGIN = re.compile(r"https?://[^/\s,*]+")
ASKED = ("authorization", "content-type", "content-encoding", "inference-header-content-length", "x-request-id")
ANSWERED = ("inference-header-content-length", "retry-after", "www-authenticate", "x-request-id")


def cors(application: ASGIApp, origins: str) -> ASGIApp:
    """The application, as web pages of these origins may use it.

    Raises:
        StartError: one of them is no origin.
    """
    names = [origin.strip() for origin in origins.split(",")]
    for name in names:
        if name != "*" and not ORIGIN.fullmatch(name):
            raise StartError(
                f"FOVEA_CORS_ORIGINS={origins}: {name!r} is no origin; must be like https://example.com or "
                "http://localhost:3000, without a path, or * for every page there is"
            )
    return CORSMiddleware(
        application,
        allow_origins=names,
        allow_methods=("GET", "POST"),
        allow_headers=ASKED,
        expose_headers=ANSWERED,
    )
