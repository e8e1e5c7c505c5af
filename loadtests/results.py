"""Where load tests leave what they found."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def new_results_folder() -> Path:
    """A new folder, named by the time."""
    folder = RESULTS / f"{datetime.now():%Y-%m-%dT%H-%M-%S}"
    folder.mkdir(parents=True)
    return folder
