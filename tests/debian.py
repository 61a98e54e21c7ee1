"""A tree of Debian 13, made once by debootstrap as root, and wheels for its Python: for images, machines."""

import os
import subprocess
import sys
from pathlib import Path

from harness import ROOT

SUITE = "trixie"
PACKAGES = (
    *("python3", "python3-pip", "python3-venv", "ca-certificates", "curl"),
    *("systemd", "systemd-sysv", "dbus", "libnss-systemd", "valkey-server"),
)

#: Control groups of version 2 alone: podman and a machine of systemd want no other beside.
MOUNTED = 'umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'


def run_apart(script, target, main):
    """Run a script again, as root, in a name space of its own; call `main` with a folder that stays."""
    if os.geteuid():
        sys.exit(f"{target} needs root")
    if "--inside" not in sys.argv:
        inside = ["unshare", "--mount", "--cgroup", "sh", "-c", MOUNTED, "sh"]
        sys.exit(subprocess.run([*inside, sys.executable, script, "--inside"], check=False).returncode)
    store = Path(os.environ.get("IMAGE_STORE", ROOT / ".venv" / "image"))
    store.mkdir(parents=True, exist_ok=True)
    main(store)


def make_tree(folder):
    """Return the tree in a folder; with `python`, and a pip that may install there."""
    tree = Path(folder) / "debian"
    if not (tree / "usr/bin/python").exists():
        include = f"--include={','.join(PACKAGES)}"
        subprocess.run(["debootstrap", "--variant=minbase", include, SUITE, tree], check=True)
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
