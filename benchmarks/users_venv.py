"""A virtual environment as `pip install wsgi-timeout` makes one, without the developers' packages.

Some of those run code at each start of Python, and redis-py imports OpenTelemetry wherever it is installed.
"""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


def make(folder):
    """Make it in `folder`, of links to what is installed here; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = Path(folder).glob("lib/python*/site-packages")
    # Ours are those of this clone.
    (site / "clone.pth").write_text(f"{ROOT}\n{ROOT / 'jobs'}\n")
    for distribution in _needed("wsgi-timeout", {}).values():
        installed = Path(distribution.locate_file(""))
        for name in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (site / name).exists() and not name.endswith(".pth"):
                (site / name).symlink_to(installed / name)
    return Path(folder) / "bin" / "python"


def _needed(name, found):
    """Add a distribution and all that it requires to `found`, by name."""
    if name not in found:
        found[name] = distribution = metadata.distribution(name)
        for written in distribution.requires or ():
            wanted = Requirement(written)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                _needed(wanted.name.lower().replace("_", "-"), found)
    return found
