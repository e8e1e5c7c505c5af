"""One parser, tried by atheris: `python -m tests.fuzz.guided PARSER [options of libFuzzer]`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris


def main() -> None:
    name, options = sys.argv[1], sys.argv[2:]
    with atheris.instrument_imports(include=["service", "PIL", "python_multipart", "starlette.formparsers"]):
        from tests.fuzz.parsers import PARSERS, attempt
    parser = PARSERS[name]
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(parser.seeds):
            Path(corpus, str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *options, corpus], lambda content: attempt(parser, content))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
