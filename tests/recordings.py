"""Record a terminal for the documentation: the commands are run, and each line appears when it was printed.

make recordings           writes docs/images/terminal.svg, of the README, and tutorial.svg, through nginx
"""

import html
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from documents import DOCS, ROOT, blocks, free_ports
from harness import Process, Serve, environment

IMAGES = DOCS / "images"
#: Pixels of a line and of a character.
LINE, CHARACTER = 20, 8.4
COLUMNS = 100
#: How long the last picture stands before it begins anew, in seconds.
REST = 6


def run(command, ports, begun):
    """Run a command against other ports than it names; return its lines, with the seconds since `begun`."""
    lines = [(time.monotonic() - begun, "$ " + command)]
    # Each line as it comes.
    there = command.replace("grep", "grep --line-buffered").replace("curl", "stdbuf -oL curl")
    for named, port in ports.items():
        there = there.replace(f"127.0.0.1:{named}", f"127.0.0.1:{port}")
    with subprocess.Popen(["bash", "-c", there], stdout=subprocess.PIPE, text=True) as running:
        lines.extend((time.monotonic() - begun, line.strip()) for line in running.stdout)
    lines.append((time.monotonic() - begun, "$ "))
    return lines


def readme(folder):
    """Return the lines of the README's command."""
    server = Serve("legacy:app", "--wait", "3", folder=ROOT / "examples" / "legacy", state=folder)
    try:
        server.wait_for("takes calls", 60)
        [command] = [
            block.text.strip() for block in blocks(ROOT / "README.md") if block.text.startswith("curl")
        ]
        return run(command, {8000: server.port}, time.monotonic())
    finally:
        server.stop()


def tutorial(folder):
    """Return the lines of the tutorial's report: cut by nginx, then through the same nginx."""
    page, ports = blocks(DOCS / "tutorial.md"), free_ports()
    for block in page:
        if block.title:
            text = block.text
            for named, port in ports.items():
                text = text.replace(f"127.0.0.1:{named}", f"127.0.0.1:{port}")
            (folder / block.title).write_text(text)
    dies, arrives = [block.text.strip() for block in page if block.text.strip().endswith("8080/report")]
    [serve] = [block.text.strip() for block in page if block.mark == "instead"]
    web, bind = Path(sys.executable).with_name("gunicorn"), f"127.0.0.1:{ports[8000]}"
    env = {**environment(), "PYTHONPATH": "", "PATH": "/usr/sbin:/usr/bin:/bin"}
    nginx = Process(["nginx", "-p", folder, "-c", "nginx.conf", "-e", "stderr"], env=env, cwd=folder)
    server = Process([web, "--bind", bind, "shop:app"], env=env, cwd=folder)
    try:
        server.wait_for("Listening at", 30)
        lines = run(dies, ports, time.monotonic())
        server.stop()
        server = Serve("shop:app", "--bind", bind, "--wait", "2", folder=folder, state=folder / "state")
        server.wait_for("takes calls", 60)
        # As long as it takes to read.
        told = lines[-1][0] + 2
        lines[-1] = (told, f"# in place of gunicorn now: {serve}")
        return lines + run(arrives, ports, time.monotonic() - told - 2)
    finally:
        server.stop()
        nginx.stop()


def shortened(line):
    """Return a line without most of its token, as wide as the picture at most."""
    line = re.sub(r"(fc-[\w-]{8})[\w.-]+", r"\1...", line)
    return line if len(line) <= COLUMNS else line[: COLUMNS - 3] + "..."


def svg(lines, title):
    """Return a picture in which each line appears at its time."""
    end = lines[-1][0] + REST
    rows = []
    for number, (seconds, line) in enumerate(lines):
        text = html.escape(shortened(line))
        part = min(seconds / end, 0.999)
        shown = (
            f'<animate attributeName="opacity" dur="{end:.1f}s" repeatCount="indefinite" calcMode="discrete" '
            f'values="0;1" keyTimes="0;{part:.4f}"/>'
        )
        colour = "#7ee787" if line.startswith(("$ ", "# ")) else "#e6edf3"
        y = 34 + LINE * number
        text += shown if seconds else ""
        rows.append(f'<text x="16" y="{y}" fill="{colour}" xml:space="preserve">{text}</text>')
    width, height = round(COLUMNS * CHARACTER) + 32, LINE * len(lines) + 36
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">\n'
        f"<title>{title}</title>\n"
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>\n'
        '<g font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="14">\n'
        + "\n".join(rows)
        + "\n</g></svg>\n"
    )


def main():
    with tempfile.TemporaryDirectory() as name:
        first, second = (Path(name) / part for part in ("readme", "tutorial"))
        first.mkdir()
        second.mkdir()
        pictures = {
            "terminal.svg": svg(readme(first), "curl follows two redirects to a report of 8 s"),
            "tutorial.svg": svg(tutorial(second), "nginx cuts a report of 12 s; by wsgi-timeout it arrives"),
        }
    for file, picture in pictures.items():
        (IMAGES / file).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
