"""The interpreters of this machine, for `--python`."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import is_missing

#: The oldest there are, which must be there.
FAST = ("2.7", "3.6")


def interpreter(version):
    """Return a Python of this version, from pyenv or the PATH; a shim on the PATH may fail when it is run."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    places = [*sorted(pyenv.glob(f"{version}.*/bin/python")), shutil.which(f"python{version}")]
    for place in filter(None, places):
        if not subprocess.run([place, "-c", ""], capture_output=True, check=False).returncode:
            return str(place)
    if version in FAST:
        is_missing(f"Python {version}")
    pytest.skip(f"not installed: Python {version}")
    return ""
