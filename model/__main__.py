"""`python -m model`, or `fovea-model`: the command line, where PyTorch is there to run it."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> int:
    if find_spec("torch") is None:
        # The script is installed with the service, which does without.
        print("error: training needs PyTorch, which is not installed: `make install-train` does it", file=sys.stderr)
        return 1
    from model import command_line

    return command_line.main()


if __name__ == "__main__":
    sys.exit(main())
