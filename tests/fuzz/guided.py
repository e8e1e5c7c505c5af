"""One parser, tried by atheris: `python -m tests.fuzz.guided PARSER [options of libFuzzer]`."""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

import atheris

MEMORY_BYTES = 2 << 30


def main() -> None:
    name, options = sys.argv[1], sys.argv[2:]
    # libFuzzer's own limit is on the peak of memory, and a process begins with the peak of the one that starts it.
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    with atheris.instrument_imports(include=["service", "PIL", "python_multipart", "starlette.formparsers"]):
        from tests.fuzz.parsers import PARSERS, attempt
    parser = PARSERS[name]
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(parser.seeds):
            Path(corpus, str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], "-rss_limit_mb=0", *options, corpus], lambda content: attempt(parser, content))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
