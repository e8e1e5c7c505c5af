"""One HTTP request to the service, as the load tests need it around the load itself."""

from __future__ import annotations

from urllib.error import HTTPError
from urllib.request import Request, urlopen

TIMEOUT_S = 60.0


def fetch(url: str, body: bytes | None = None, content_type: str = "") -> bytes:
    """The answer's body; a POST where there is a body to send. Ends the program where there is no good answer."""
    try:
        with urlopen(Request(url, body, {"content-type": content_type}), timeout=TIMEOUT_S) as response:
            content: bytes = response.read()
            return content
    except HTTPError as error:
        with error:
            raise SystemExit(f"error: {url} answers {error.code}: {error.read().decode()}") from None
    except OSError as error:
        raise SystemExit(f"error: {url}: {error}") from None
