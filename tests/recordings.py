"""Record a terminal for the documentation: the commands are run, and each line appears when it was printed.

make recordings                                         writes docs/images/terminal.svg
"""

import html
import re
import subprocess
import tempfile
import time
from pathlib import Path

from documents import ROOT, blocks
from harness import Serve

FILE = ROOT / "docs" / "images" / "terminal.svg"
#: Pixels of a line and of a character.
LINE, CHARACTER = 20, 8.4
COLUMNS = 100
#: How long the last picture stands before it begins anew, in seconds.
REST = 6


def recorded(server):
    """Run the README's command of curl at a server; return its lines, each with the seconds until it came."""
    [command] = [block.text.strip() for block in blocks(ROOT / "README.md") if block.text.startswith("curl")]
    begun = time.monotonic()
    lines = [(0.0, "$ " + command)]
    there = command.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    # Each line as it comes.
    there = there.replace("grep", "grep --line-buffered").replace("curl", "stdbuf -oL curl")
    with subprocess.Popen(["bash", "-c", there], stdout=subprocess.PIPE, text=True) as running:
        lines.extend((time.monotonic() - begun, line.strip()) for line in running.stdout)
    lines.append((time.monotonic() - begun, "$ "))
    return lines


def shortened(line):
    """Return a line without most of its token, as wide as the picture at most."""
    line = re.sub(r"(fc-[\w-]{8})[\w.-]+", r"\1...", line)
    return line if len(line) <= COLUMNS else line[: COLUMNS - 3] + "..."


def svg(lines):
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
        colour = "#7ee787" if line.startswith("$ ") else "#e6edf3"
        y = 34 + LINE * number
        text += shown if seconds else ""
        rows.append(f'<text x="16" y="{y}" fill="{colour}" xml:space="preserve">{text}</text>')
    width, height = round(COLUMNS * CHARACTER) + 32, LINE * len(lines) + 36
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">\n'
        "<title>curl follows two redirects to a report of 8 s</title>\n"
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>\n'
        '<g font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="14">\n'
        + "\n".join(rows)
        + "\n</g></svg>\n"
    )


def main():
    with tempfile.TemporaryDirectory() as state:
        server = Serve("legacy:app", "--wait", "3", folder=ROOT / "examples" / "legacy", state=Path(state))
        try:
            server.wait_for("takes calls", 60)
            lines = recorded(server)
        finally:
            server.stop()
    FILE.write_text(svg(lines), encoding="utf-8")
    print(f"{FILE} {len(lines)} lines")  # noqa: T201


if __name__ == "__main__":
    main()
