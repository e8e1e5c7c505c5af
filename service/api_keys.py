"""API keys: who may ask for what.

A file holds a line for each key: its name, its rights, and its SHA-256. `fovea key` makes a key of 256 random bits: it
cannot be guessed, and a salt or a slow hash, which passwords need, would only cost time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from service.errors import ForbiddenError, StartError, UnauthenticatedError

PREFIX = "fovea_"
"""Of every key, so that one that got into a repository or a log can be found there."""
KEY_BYTES = 32
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
HASH = re.compile(r"[0-9a-f]{64}")


class Right(StrEnum):
    INFER = "infer"
    """Inference, and reading what there is."""
    CONTROL = "control"
    """Changing what is served, logged, traced, and which memory is shared."""


@dataclass(frozen=True)
class ApiKey:
    name: str
    rights: frozenset[Right]
    digest: bytes


class ApiKeys:
    """The keys of a file.

    Attributes:
        known: those that hold now; others after each reading.

    Raises:
        StartError: the file cannot be read, or a line of it is wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reload()

    def reload(self) -> None:
        """Read the file again; where that fails, what was read before is kept.

        Raises:
            StartError: as when it was read first.
        """
        self.known = _read(self.path)

    def require(self, right: Right, authorization: str) -> None:
        """Args:
            authorization: the header, empty where there is none.

        Raises:
            UnauthenticatedError: it is no key of the file.
            ForbiddenError: the key does not have the right.
        """
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise UnauthenticatedError("an API key is needed: the header 'Authorization: Bearer KEY'")
        digest = _digest(key.strip())
        found: ApiKey | None = None
        # Always all of them, and each whole: how long it takes tells nothing.
        for candidate in self.known:
            if hmac.compare_digest(candidate.digest, digest):
                found = candidate
        if found is None:
            raise UnauthenticatedError("the API key is not valid: it must be one of the file FOVEA_API_KEYS")
        if right not in found.rights:
            raise ForbiddenError(
                f"the API key {found.name!r} does not have the right {right.value!r}, which this needs"
            )

    def allow(self, right: Right, authorization: str) -> bool:
        try:
            self.require(right, authorization)
        except (UnauthenticatedError, ForbiddenError):
            return False
        return True


def new_key() -> str:
    return PREFIX + secrets.token_urlsafe(KEY_BYTES)


def line_of(name: str, rights: Iterable[Right], key: str) -> str:
    """What a key file has of a key, which cannot be had from it.

    Raises:
        ValueError: there can be no key of this name.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r}: a key's name has 1 to 64 letters, digits, dots, dashes and underscores")
    return f"{name} {','.join(sorted(set(rights)))} {_digest(key).hex()}"


def rights_of(text: str) -> frozenset[Right]:
    """Raises:
    ValueError: not names of rights, by commas.
    """
    known = {right.value: right for right in Right}
    names = text.split(",")
    if not set(names) <= known.keys():
        raise ValueError(f"{text!r}: rights must be {' or '.join(known)}, or both with a comma")
    return frozenset(known[name] for name in names)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="replace")).digest()


def _read(path: Path) -> tuple[ApiKey, ...]:
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, ValueError) as error:
        raise StartError(f"FOVEA_API_KEYS={path}: cannot be read ({error})") from error
    keys: dict[str, ApiKey] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            key = _key(line)
        except ValueError as error:
            # Without the line itself: in its place may be a key.
            raise StartError(f"FOVEA_API_KEYS={path}, line {number}: {error}; `fovea key NAME` makes a line") from None
        if key.name in keys:
            raise StartError(f"FOVEA_API_KEYS={path}, line {number}: a second key {key.name!r}; names must differ")
        keys[key.name] = key
    if not keys:
        raise StartError(f"FOVEA_API_KEYS={path}: no keys in it; `fovea key NAME` makes one")
    return tuple(keys.values())


def _key(line: str) -> ApiKey:
    parts = line.split()
    if len(parts) != 3:
        raise ValueError("must be a name, rights and a hash, with spaces between")
    name, rights, digest = parts
    if not NAME.fullmatch(name):
        raise ValueError("the name must have 1 to 64 letters, digits, dots, dashes and underscores")
    if not HASH.fullmatch(digest):
        raise ValueError("the hash must have 64 digits of 0-9 and a-f")
    return ApiKey(name, rights_of(rights), bytes.fromhex(digest))
