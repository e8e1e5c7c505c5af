"""Images over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator

from geventhttpclient import HTTPClient

from loadtests.clients.client import TIMEOUT_S, RequestError


class ImagesHttp:
    """One raw image in each request's body.

    Args:
        url: `http://host:port`.
        images: encoded as JPEG.
        connections: the most; each request takes one for itself.
    """

    def __init__(self, url: str, images: Iterator[bytes], connections: int) -> None:
        self._images = images
        self._http = HTTPClient.from_url(
            url, concurrency=connections, connection_timeout=TIMEOUT_S, network_timeout=TIMEOUT_S
        )

    def send(self) -> int:
        response = self._http.post("/v1/classify", next(self._images), {"content-type": "image/jpeg"})
        body = bytes(response.read())
        if response.status_code != 200:
            raise RequestError(f"{response.status_code}: {_reason(body)}")
        return len(body)

    def close(self) -> None:
        self._http.close()


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, TypeError, KeyError):
        return body.decode(errors="replace")
