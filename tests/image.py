"""Follow the page on containers by podman, as root: `make test-image`.

It builds the image of deploy/Containerfile, runs both halves from it, and both health checks. It needs podman
with netavark and aardvark-dns, and either a registry that has the two images of others or debootstrap, which
makes ones like them of Debian 13. What pip installs in the image is downloaded first, and mounted.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from debian import have_wheels, make_tree, run_apart
from documents import DOCS, PORTS, Script, free_ports
from harness import ROOT

PAGE = DOCS / "how-to" / "containers.md"
TARGET = "make test-image"
PYTHON, VALKEY = "docker.io/library/python:3.13-slim", "docker.io/valkey/valkey:8"
PATH = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: What each image runs, where it is made and not pulled.
CHANGES = {PYTHON: [PATH], VALKEY: [PATH, 'ENTRYPOINT ["valkey-server", "--protected-mode", "no"]']}
#: No limit is raised and no group of processes limited: a container in which this runs may do neither.
CONFIGURATION = """
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
volumes = ["{folder}/wheels:/wheels:ro", "{folder}/pip.conf:/etc/pip.conf:ro"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
STORAGE = """
[storage]
driver = "overlay"
graphroot = "{store}/images"
runroot = "{store}/run"
"""


def podman(*words, check=True, **options):
    return subprocess.run(["podman", *words], check=check, **options).returncode == 0


def have_images(store):
    """Pull the images of others, or make them, unless they are there."""
    for image, changes in CHANGES.items():
        if podman("image", "exists", image, check=False) or podman("pull", "-q", image, check=False):
            continue
        options = [word for change in changes for word in ("--change", change)]
        with subprocess.Popen(["tar", "-C", make_tree(store), "-c", "."], stdout=subprocess.PIPE) as tar:
            podman("import", "-q", *options, "-", image, stdin=tar.stdout)


def follow(folder):
    """Run the page's commands; return what was not as it says."""
    (folder / "here").mkdir()
    port = free_ports()[8000]
    changes = {
        "/path/to/the/clone": str(ROOT),
        "-p 127.0.0.1:8000": f"-p 127.0.0.1:{port}",  # not the one inside of the container
        "'http://127.0.0.1:8000/reports": f"'http://127.0.0.1:{port}/reports",
    }
    script = Script(PAGE, folder / "here", {named: named for named in PORTS}, changes, by=TARGET)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", "\n".join(script.lines)],
        cwd=folder / "here",
        # A build in a chroot, as it would set limits otherwise; no systemd timers for the checks.
        env={**os.environ, "PATH": path, "BUILDAH_ISOLATION": "chroot", "DISABLE_HC_SYSTEMD": "true"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    click.echo(done.stdout)
    return script.complaints(done.stdout)


def main(store):
    with tempfile.TemporaryDirectory(prefix="wt-image-") as name:
        folder = Path(name)
        for variable, text in (("CONTAINERS_CONF", CONFIGURATION), ("CONTAINERS_STORAGE_CONF", STORAGE)):
            os.environ[variable] = str(folder / variable)
            (folder / variable).write_text(text.format(folder=folder, store=store))
        have_wheels(folder)
        have_images(store)
        try:
            complaints = follow(folder)
        finally:
            podman("rm", "-f", "--all", stdout=subprocess.DEVNULL)
            podman("network", "prune", "-f", stdout=subprocess.DEVNULL)
    sys.exit("\n".join(complaints) or 0)


if __name__ == "__main__":
    run_apart(__file__, TARGET, main)
