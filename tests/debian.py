"""A tree of Debian 13, made once by debootstrap as root, and wheels for its Python: for images, machines."""

import subprocess
import sys
from pathlib import Path

from harness import ROOT

SUITE, MIRROR = "trixie", "http://deb.debian.org/debian"
PACKAGES = (
    *("python3", "python3-pip", "python3-venv", "ca-certificates", "curl"),
    *("systemd", "systemd-sysv", "dbus", "libnss-systemd", "valkey-server"),
)


def make_tree(folder):
    """Return the tree in a folder; with `python`, and a pip that may install there."""
    tree = Path(folder) / "debian"
    if not (tree / "usr/bin/python").exists():
        include = f"--include={','.join(PACKAGES)}"
        subprocess.run(["debootstrap", "--variant=minbase", include, SUITE, tree, MIRROR], check=True)
        for path in tree.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            path.unlink()
        (tree / "usr/bin/python").symlink_to("python3")
    return tree


def have_wheels(folder):
    """Return our wheel, in a folder with all that it needs, and a pip.conf that knows no other place."""
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", folder / "wheels", ROOT], check=True)
    [wheel] = (folder / "wheels").glob("*.whl")
    options = ["-q", "--python-version", "3.13", "--only-binary=:all:", "-d", folder / "wheels"]
    subprocess.run([*pip, "download", *options, wheel], check=True)
    (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    return wheel
