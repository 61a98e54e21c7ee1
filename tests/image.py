"""Build deploy/Containerfile around examples/legacy, and run both halves from the image: `make test-image`.

It needs root, buildah, and either a registry that has the base image or debootstrap, which makes one like it
of Debian 13. What pip installs in the image is downloaded first, and mounted: a build has no network of ours.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from harness import ROOT, Process, RedisServer, follow, until

BASE = "docker.io/library/python:3.13-slim"
SUITE, MIRROR = "trixie", "http://deb.debian.org/debian"
PACKAGES = "python3,python3-pip,python3-venv,ca-certificates"
#: Seconds that the report takes, and that a request waits for it.
REPORT_SECONDS, WAIT_SECONDS = 5, 2
LIVE = "import urllib.request as r; r.urlopen('http://{}/__wsgi_timeout/live', timeout=4)"


class Builder:
    """buildah with storage of its own; containers share this machine's network."""

    def __init__(self, store):
        self._words = ["buildah", "--root", store / "images", "--runroot", store / "run"]
        self._env = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}

    def try_run(self, *words):
        return subprocess.run([*self._words, *words], env=self._env, check=False).returncode == 0

    def run(self, *words):
        """Run a command, and return what it prints."""
        found = subprocess.run(
            [*self._words, *words], env=self._env, stdout=subprocess.PIPE, text=True, check=True
        )
        return found.stdout.strip()

    def start(self, container, env, *words):
        """Start a command in a container."""
        options = [word for name, value in env.items() for word in ("--env", f"{name}={value}")]
        return Process([*self._words, "run", *options, container, "--", *words], env=self._env)


def have_base(builder, folder):
    """Pull the base image, or make it, unless it is there."""
    if builder.try_run("inspect", "--type", "image", "--format", BASE, BASE) or builder.try_run(
        "pull", "-q", BASE
    ):
        return
    tree = folder / "tree"
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, tree, MIRROR], check=True
    )
    # As in the image that it stands for: `python`, and a pip that may install there.
    (tree / "usr/bin/python").symlink_to("python3")
    for path in tree.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        path.unlink()
    container = builder.run("from", "scratch")
    builder.run("copy", "-q", container, tree, "/")
    builder.run(
        "config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container
    )
    builder.run("commit", "-q", "--rm", container, BASE)


def build(builder, folder):
    """Build the image as the page on containers says, and return its name."""
    context, wheels = folder / "context", folder / "wheels"
    shutil.copytree(ROOT / "examples" / "legacy", context)
    shutil.copytree(ROOT / "deploy", context / "deploy")
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", context, ROOT], check=True)
    [wheel] = context.glob("*.whl")
    (context / "requirements.txt").write_text(f"./{wheel.name}\n")
    download = ["download", "-q", "--python-version", "3.13", "--only-binary=:all:", "-d", wheels, wheel]
    subprocess.run([*pip, *download], check=True)
    (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    mounts = ["-v", f"{wheels}:/wheels:ro", "-v", f"{folder}/pip.conf:/etc/pip.conf:ro"]
    words = ["build", "-q", "--pull=never", "--format", "docker", *mounts, "-t", "legacy"]
    click.echo(builder.run(*words, "-f", context / "deploy" / "Containerfile", context))
    return "legacy"


def use(builder, image):
    """Run both halves; a report that takes longer than the wait arrives, and both health checks pass."""
    web, worker = builder.run("from", image), builder.run("from", image)
    form = "{{range .Docker.Config.Cmd}}{{println .}}{{end}}"
    command = builder.run("inspect", "--type", "image", "--format", form, image).splitlines()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with contextlib.ExitStack() as stack:
        server = RedisServer()
        stack.callback(server.close)
        server.client.config_set("bind", "127.0.0.1")
        with socket.create_server(("127.0.0.1", 0)) as sock:
            redis_port = sock.getsockname()[1]
        server.client.config_set("port", redis_port)
        env = {"REDIS_URL": f"redis://127.0.0.1:{redis_port}/0", "WSGI_TIMEOUT_WAIT_SECONDS": WAIT_SECONDS}
        pool = builder.start(worker, env, "wsgi-timeout", "worker", "legacy:app", "--processes", "2")
        stack.callback(pool.stop)
        pool.wait_for("takes calls", 60)
        site = builder.start(web, {**env, "WSGI_TIMEOUT_BIND": f"127.0.0.1:{port}"}, *command)
        stack.callback(site.stop)
        site.wait_for("Booting worker", 60)
        hops = until(lambda: report(port), 60, "the report")
        click.echo(f"a report of {REPORT_SECONDS} s came after {len(hops) - 1} redirects: {hops[-1].status}")
        assert (hops[-1].status, len(hops) >= 3) == (200, True)
        for container, check in (
            (worker, ("wsgi-timeout", "health")),
            (web, ("python", "-c", LIVE.format(f"127.0.0.1:{port}"))),
        ):
            found = builder.start(container, env, *check)
            assert found.popen.wait(60) == 0, found.output
        click.echo("both health checks pass")


def report(port):
    with contextlib.suppress(OSError):
        return follow(port, f"/reports/2025?seconds={REPORT_SECONDS}")
    return None


def main():
    store = Path(os.environ.get("IMAGE_STORE", ROOT / ".venv" / "image"))
    builder = Builder(store)
    with tempfile.TemporaryDirectory(prefix="wt-image-") as folder:
        have_base(builder, Path(folder))
        use(builder, build(builder, Path(folder)))


if __name__ == "__main__":
    main()
