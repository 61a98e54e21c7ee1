"""Interpreters of this machine, and uv, which resolves and installs in seconds."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

VENVS = Path(__file__).resolve().parents[2] / ".venv-stacks"
#: On CI nothing may be left out.
ON_CI = os.environ.get("CI") == "true"


def python(version: str, needs: str = "sys") -> str:
    """Return an interpreter that runs and has the modules it `needs`, of pyenv or the PATH; empty: none has.

    A shim on the PATH may fail when it is run.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    places = [*sorted(pyenv.glob(f"{version}.*/bin/python")), shutil.which(f"python{version}")]
    for place in filter(None, places):
        command = [place, "-c", f"import {needs}"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return str(place)
    return ""


@functools.cache
def uv() -> Path:
    """Return the program, which is installed where it is not there yet."""
    venv = VENVS / "uv"
    program = venv / "bin/uv"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/python", "-m", "pip", "install", "-qq", "uv"], check=True)
    return program
