"""README, tutorial and examples, followed from a fresh clone on: nothing of ours is installed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import DOCS, EXAMPLES, ROOT, Script, free_ports, name
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


def plain_path():
    """Return a PATH without the tests' own environment."""
    parts = os.environ["PATH"].split(os.pathsep)
    python = str(Path(sys._base_executable).parent)
    return os.pathsep.join([python, *(part for part in parts if ".venv" not in part)])


def follow(page, folder, state):
    """Run the commands of a page in a clone; return what is not as the page says."""
    ports = free_ports()
    script = Script(page, folder, ports)
    env = {**environment(), "PATH": plain_path(), "XDG_STATE_HOME": str(state)}
    env["BIND"] = f"127.0.0.1:{ports[8000]}"
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
    return "\n".join([*complaints, done.stderr, logs]) if complaints else ""


def needs(*programs):
    for program in programs:
        if not shutil.which(program, path=f"{plain_path()}:/usr/sbin"):
            is_missing(program)


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "tutorial.md"], ids=name)
def test_first_steps_lead_to_a_redirect(page, tmp_path):
    """Its commands, in a clean clone, print what the page says."""
    needs("nginx", "make", "curl")
    clone(tmp_path / "clone")
    complaint = follow(page, tmp_path / "clone", tmp_path / "state")
    assert not complaint, complaint


@pytest.mark.timeout(900)
def test_examples_are_served_by_one_command_each(tmp_path):
    """What each example's README says, in one clean clone, serves it, without the developers' tools."""
    needs("make", "tesseract")
    folder = tmp_path / "clone"
    clone(folder)
    complaints = {name(page): follow(page, folder, tmp_path / "state") for page in EXAMPLES}
    assert not any(complaints.values()), complaints
    assert not (folder / ".venv" / "bin" / "pytest").exists()
