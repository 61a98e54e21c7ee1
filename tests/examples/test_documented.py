"""The documentation's code: every block is sound, and pages with commands are followed as a reader would."""

import ast
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import ROOT, environment

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md") if path.name != "decisions.md")]
BLOCK = re.compile(r"^(<!-- not run: .*? -->\n+)?```(\w+)([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    language: str
    title: str
    text: str
    runs: bool


def blocks(page):
    """Return the code blocks of a page, in their order."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    titles = [re.search(r'title="([^"]+)"', options) for _, _, options, _ in found]
    return [
        Block(language, title.group(1) if title else "", text, not skipped)
        for (skipped, language, _, text), title in zip(found, titles, strict=True)
    ]


PYTHON = [
    pytest.param(block.text, id=f"{page.relative_to(ROOT)}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page))
    if block.language == "python"
]
FOLLOWED = [
    page for page in PAGES if any(block.language == "console" and block.runs for block in blocks(page))
]


@pytest.mark.parametrize("text", PYTHON)
def test_python_is_sound(text):
    """Each Python block can be parsed, and what it imports from us is there."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wsgi_timeout"):
            module = __import__(node.module, fromlist=[alias.name for alias in node.names])
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def steps(text):
    """Return the commands of a console block, each with the lines that must come of it."""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def moved(text, ports):
    """Return a text with free ports in place of those that the documentation names."""
    for named, free in ports.items():
        text = text.replace(f"127.0.0.1:{named}", f"127.0.0.1:{free}")
    return text


def free_ports():
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        return {8000: one.getsockname()[1], 8001: two.getsockname()[1]}


def script(page, folder, ports):
    """Write a page's files; return its commands as one script of bash, and what each must print."""
    lines, expected = ["set -m", "trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT"], []
    for block in blocks(page):
        if block.title and not block.title.startswith("/"):
            (folder / block.title).write_text(block.text)
        elif block.language == "console" and block.runs:
            for command, output in steps(block.text):
                lines += [f"printf '\\n@@@{len(expected)}\\n'", moved(command, ports)]
                expected.append((command, output))
    return "\n".join([*lines, "printf '\\n@@@\\n'"]), expected


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize("page", FOLLOWED, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_is_followed(page, tmp_path):
    """Its files in a clean folder, its commands in order: each prints what the page says."""
    folder = tmp_path / "here"
    folder.mkdir()
    text, expected = script(page, folder, free_ports())
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**environment(), "PATH": path, "PYTHONPATH": "", "XDG_STATE_HOME": str(tmp_path / "state")}
    done = subprocess.run(
        ["bash", "-c", text], cwd=folder, env=env, capture_output=True, text=True, timeout=140, check=False
    )
    outputs = re.split(r"^@@@\d*\n", done.stdout, flags=re.MULTILINE)[1:]
    logs = "\n".join(log.read_text() for log in folder.glob("*.log"))
    assert len(outputs) == len(expected) + 1, done.stdout + done.stderr + logs
    for (command, lines), output in zip(expected, outputs, strict=False):
        if lines:
            pattern = ".*".join(map(re.escape, "\n".join(lines).split("...")))
            assert re.fullmatch(pattern, output.replace("\r", "").strip(), re.DOTALL), (
                f"{command}\n{output}\n{done.stderr}\n{logs}"
            )
