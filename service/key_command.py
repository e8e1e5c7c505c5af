"""`fovea key`: makes an API key."""

from __future__ import annotations

import sys

from service.api_keys import line_of, new_key, rights_of


def make_key(name: str, rights: str) -> int:
    """Print a fresh key, which is kept nowhere, and its line for the key file; 1 where there can be none."""
    key = new_key()
    try:
        line = line_of(name, rights_of(rights), key)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"The key, for its owner; it is shown this once:\n  {key}\nIts line, for the file FOVEA_API_KEYS:\n  {line}")
    return 0
