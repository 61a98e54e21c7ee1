"""The API as users type it: type checkers agree with `typing/api.py`, its expected errors included."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import TESTS, is_missing

API = TESTS / "typing" / "api.py"


def run(command, folder):
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_mypy_agrees(tmp_path):
    """mypy, in strict mode, finds the types that `api.py` says, and every error that it expects."""
    # Away from the checkout: the types are those of the installed package.
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", API]
    checked = run(command, tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.timeout(120)
def test_pyright_agrees(tmp_path):
    """pyright finds the same; on CI it must be there."""
    pyright = shutil.which("pyright", path=str(Path(sys.executable).parent))
    if not pyright:
        is_missing("pyright")
    checked = run([pyright, "--pythonpath", sys.executable, API], tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
