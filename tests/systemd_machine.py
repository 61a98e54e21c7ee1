"""Follow the page on systemd on a machine of its own, as root: `make test-systemd`.

systemd-nspawn boots a Debian 13 that debootstrap made, from memory and without a network: its systemd, its
Valkey, our units. What pip installs there is downloaded first, and mounted.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
from debian import have_wheels, make_tree, run_apart
from documents import DOCS, PORTS, Script
from harness import ROOT

PAGE = DOCS / "how-to" / "systemd.md"
TARGET = "make test-systemd"
#: Seconds for all of it.
PATIENCE = 300
UNIT = """[Unit]
After=network.target valkey-server.service
Wants=valkey-server.service
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
WorkingDirectory=/here
ExecStart=/bin/bash /here/page.sh
StandardOutput=file:/here/printed
StandardError=file:/here/errors
"""


def boot(tree, folder):
    """Boot the tree, have it follow the page, and wait until it is off."""
    mounts = {
        folder / "here": "/here",
        folder / "page.service": "/etc/systemd/system/page.service",
        folder / "pip.conf": "/etc/pip.conf",
        folder / "hosts": "/etc/hosts",
        folder / "wheels": "/wheels",
        ROOT: "/clone",
    }
    binds = [f"--bind={source}:{target}" for source, target in mounts.items()]
    options = ["--volatile=overlay", "--private-network", "--register=no", "--keep-unit", "--console=pipe"]
    words = ["systemd-nspawn", f"--directory={tree}", f"--machine=wt-{os.getpid()}", *options, *binds]
    env = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
    subprocess.run(
        [*words, "--boot", "systemd.wants=page.service"],
        env=env,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE,
        check=False,
    )


def main(store):
    with tempfile.TemporaryDirectory(prefix="wt-machine-") as name:
        folder = Path(name)
        (folder / "here").mkdir()
        wheel = have_wheels(folder)
        changes = {"/path/to/the/clone/": "/clone/", "/path/to/the/clone": f"/wheels/{wheel.name}"}
        script = Script(PAGE, folder / "here", {named: named for named in PORTS}, changes, by=TARGET)
        (folder / "here" / "page.sh").write_text("\n".join(script.lines))
        (folder / "page.service").write_text(UNIT)
        (folder / "hosts").write_text("127.0.0.1 localhost\n")
        boot(make_tree(store), folder)
        printed = (folder / "here" / "printed").read_text()
        click.echo(printed)
        complaints = script.complaints(printed)
        if complaints:
            complaints.append((folder / "here" / "errors").read_text())
    sys.exit("\n".join(complaints) or 0)


if __name__ == "__main__":
    run_apart(__file__, TARGET, main)
