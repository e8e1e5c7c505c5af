"""Whatever bytes a parser gets, it takes them or says in the service's own words why not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.fuzz import install
from tests.fuzz.campaign import SCALE, TRIED, try_inputs
from tests.fuzz.mutations import changed_bytes
from tests.fuzz.parsers import PARSERS, attempt
from tests.service.launch import ROOT

# Pillow warns of many a broken file before it refuses it.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

GUIDED_INPUTS = int(20_000 * SCALE)
TIMEOUT_S = int(600 * max(1, SCALE))


@pytest.mark.parametrize("name", PARSERS)
def test_what_is_nearly_right(name: str) -> None:
    parser = PARSERS[name]
    contents = st.sampled_from(parser.seeds).flatmap(changed_bytes)
    try_inputs(f"parser {name}, changed", 150, contents, lambda content: attempt(parser, content))


@pytest.mark.system
@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.parametrize("name", PARSERS)
def test_what_reaches_new_code(tmp_path: Path, name: str) -> None:
    """Guided by coverage, with a limit on the time that one input may take, and on the memory of all."""
    if reason := install.missing():
        pytest.skip(reason)
    options = [f"-runs={GUIDED_INPUTS}", "-timeout=30", "-max_len=8192"]
    options += ["-print_final_stats=1", f"-artifact_prefix={tmp_path}/"]
    if SCALE == 1:
        options.append("-seed=1")
    result = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.guided", name, *options],
        cwd=ROOT,
        env=install.environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-5000:]
    found = re.search(r"number_of_executed_units: (\d+)", output)
    assert found, output[-5000:]
    TRIED[f"parser {name}, guided"] += int(found[1])
