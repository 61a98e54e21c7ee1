"""README and tutorial, followed from a fresh clone on: nothing of ours is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import DOCS, ROOT, Script, free_ports, name
from harness import environment, is_missing

#: Each installs from the package index.
pytestmark = [pytest.mark.followed, pytest.mark.timeout(400)]


def clone(folder):
    """Copy what a clone would have, with what is not committed yet."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for file in filter(None, files):
        if (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "tutorial.md"], ids=name)
def test_first_steps_lead_to_a_redirect(page, tmp_path):
    """Its commands, in a clean clone, print what the page says."""
    path = os.pathsep.join(
        [
            str(Path(sys._base_executable).parent),
            *(part for part in os.environ["PATH"].split(os.pathsep) if ".venv" not in part),
        ]
    )
    for program in ("nginx", "make", "curl"):
        if not shutil.which(program, path=f"{path}:/usr/sbin"):
            is_missing(program)
    folder = tmp_path / "clone"
    clone(folder)
    ports = free_ports()
    script = Script(page, folder, ports)
    env = {
        **environment(),
        "PATH": path,
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "BIND": f"127.0.0.1:{ports[8000]}",
    }
    for inherited in ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS", "VENV"):
        env.pop(inherited, None)
    done = subprocess.run(
        ["bash", "-c", "\n".join(script.lines)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=390,
        check=False,
    )
    logs = "\n".join(f"{log.name}:\n{log.read_text()}" for log in folder.rglob("goes-on-*.log"))
    complaints = script.complaints(done.stdout)
    assert not complaints, "\n".join([*complaints, done.stderr, logs])
