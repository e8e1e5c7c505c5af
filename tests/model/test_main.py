from __future__ import annotations

import subprocess
import sys

import pytest

from model.__main__ import main


def test_without_pytorch_one_line_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main() == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "error: training needs PyTorch, which is not installed: `make install-train` does it\n"


def test_the_module_needs_no_pytorch_to_say_so() -> None:
    program = "import sys; sys.modules['torch'] = None; import model.__main__ as program; sys.exit(program.main())"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 1
    assert found.stderr.startswith("error: training needs PyTorch")
    assert found.stderr.count("\n") == 1


def test_the_module_is_the_command_line() -> None:
    command = [sys.executable, "-m", "model", "summary", "lenet", "--input", "3x32x32"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "parameters" in found.stdout
