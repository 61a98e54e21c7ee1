"""The documentation's code: every block is sound, and each page is followed as a reader would."""

import ast
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click
import psutil
import pytest
from documents import DOCS, EXAMPLES, PAGES, ROOT, Script, blocks, commands, free_ports, name
from harness import environment, is_missing

from wsgi_timeout.serving.cli import main as cli

#: These are followed from a clone on, by test_first_steps.py.
FIRST_STEPS = {ROOT / "README.md", DOCS / "tutorial.md", *EXAMPLES}
RECIPES = ("deploy/", "examples/")
#: What follows a page as root, where its blocks need that.
FOLLOWERS = {"make test-image", "make test-systemd"}
#: Files that no block needs to name: kubectl finds its own by this name.
KNOWN = ("/", *RECIPES, "kustomization.yaml")
#: Figures that only a measurement can give: settings and limits are round numbers of s, KiB and MiB.
MEASURED = re.compile(
    r"\b\d[\d.,]* (?:ms|us|KB|[KM](?:i?B)/s|(?:requests|calls|events)(?:/s| a second))(?!\w)"
)
MEASURED_BY = re.compile(r"make [a-z-]+|results\.md|tests/")
LANGUAGES = {
    "sh",
    "text",
    "python",
    "js",
    "json",
    "ini",
    "nginx",
    "haproxy",
    "yaml",
    "dockerfile",
    "procfile",
    "css",
}
FOLLOWED = [
    page
    for page in PAGES
    if page not in FIRST_STEPS
    and any(block.runs and block.language in {"sh", "python"} and not block.title for block in blocks(page))
]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_are_of_known_kinds(page):
    """Each block names its language, and is run, or is a file or output; a target of make runs a few."""
    for block in blocks(page):
        assert block.language in LANGUAGES
        assert block.runs or block.remark in FOLLOWERS
        if block.language not in {"sh", "python", "text"}:
            assert block.title, f"a file needs its name:\n{block.text}"
        if block.runs and block.title and not block.title.startswith(KNOWN):
            others = [other.text for other in blocks(page) if other != block and other.language != "text"]
            assert any(Path(block.title).stem in text for text in others), f"nothing uses {block.title}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_is_sound(page):
    """Each Python block can be parsed, and what it imports from us is there."""
    for block in blocks(page):
        for node in ast.walk(ast.parse(block.text)) if block.language == "python" else ():
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("wsgi_timeout"):
                module = __import__(node.module, fromlist=[alias.name for alias in node.names])
                there = node.module == "wsgi_timeout_client" or all(
                    hasattr(module, alias.name) for alias in node.names
                )
                assert there, ast.unparse(node)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_are_understood(page):
    """Each shell block can be parsed, and each command of ours in it takes the options that it is given."""
    texts = [block.text for block in blocks(page) if block.language == "sh"]
    whole = "\n".join(texts)
    done = subprocess.run(["bash", "-n"], input=whole, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    for line in commands(whole):
        assert not line.startswith("$ "), "no prompts: a block is pasted as it is"
        for part in re.split(r"&&|\|\||[|&;](?!\d)", line):
            understood(part)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_in_sentences_are_understood(page):
    """So does each command of ours that stands in a sentence or a table."""
    prose = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for found in re.findall(r"`((?:[A-Z_]+=\S+ )*wsgi-timeout [a-z][^`]*)`", prose):
        understood(found.replace("...", ""))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_targets_and_variables_are_there(page):
    """Each target of make that a page names is in the Makefile, each variable of ours is one that is read."""
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"[`\n]make ([a-z0-9-]+)", text)) <= set(targets)
    settings = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")
    read = {f"WSGI_TIMEOUT_{row.upper()}" for row in re.findall(r"^\| `(\w+)` \|", settings, re.MULTILINE)}
    read |= set(re.findall(r"^\| `(WSGI_TIMEOUT_\w+)` \|", settings, re.MULTILINE))
    assert set(re.findall(r"WSGI_TIMEOUT_[A-Z_]*[A-Z]", text)) <= read


def understood(line):
    """Fail if a command line of ours names a command or an option that is not there."""
    if "wsgi-timeout" not in line:
        return
    words = shlex.split(re.sub(r"[<>]+ *\S+", "", line.split(" > ")[0]), comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    if words[:1] != ["wsgi-timeout"] or len(words) < 2 or words[1].isupper():
        return
    command = cli.get_command(click.Context(cli), words[1])
    assert command, line
    options = [word for word in words[2:] if word.startswith("-") and len(word) > 1]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    if not isinstance(command, click.Group):
        assert {option.partition("=")[0] for option in options} <= known, line


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_recipes_on_a_page_are_the_files(page):
    """What a page shows of deploy/ and examples/ is that file, to the letter: `make reference`."""
    for block in blocks(page):
        if block.title.startswith(RECIPES):
            text = (ROOT / block.title).read_text(encoding="utf-8")
            assert block.text in {text, text.partition('"""\n\n')[2]}


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "decisions"], ids=name)
def test_figures_name_what_measured_them(page):
    """A section with measured times, rates or memory names the program that took them."""
    prose = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for section in re.split(r"^(?=#{1,6} )", prose, flags=re.MULTILINE):
        figures = [line for line in section.splitlines() if MEASURED.search(line)]
        assert not figures or MEASURED_BY.search(section), "\n".join(figures)


@pytest.mark.followed
@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", FOLLOWED, ids=name)
def test_a_page_is_followed(page, tmp_path, redis_server):
    """Its files in a clean folder, its commands in order: none fails, and each prints what the page says."""
    for module in imported(page):
        if find_spec(module) is None:
            is_missing(module)
    folder = tmp_path / "here"
    folder.mkdir()
    ports = free_ports()
    changes = {
        "redis://localhost:6379/0": redis_server.url,
        "/path/to/the/clone": str(ROOT),
        " /etc/": " etc/",
        "honcho start -f deploy/Procfile -p 8000": f"honcho start -f deploy/Procfile -p {ports[8000]}",
        "https://key@sentry.example.com": "http://key@127.0.0.1:9",
    }
    redis_server.client.flushall()
    script = Script(page, folder, ports, changes)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
    env = {**environment(), "PATH": path, "PYTHONPATH": "", "XDG_STATE_HOME": str(tmp_path / "state")}
    if "honcho" not in page.read_text(encoding="utf-8"):  # it gives gunicorn a port by $PORT
        env["WSGI_TIMEOUT_BIND"] = f"127.0.0.1:{ports[8000]}"
    printed, errors = run(script, folder, env)
    logs = "\n".join(f"{log.name}:\n{log.read_text()}" for log in folder.glob("*.log"))
    complaints = script.complaints(printed)
    assert not complaints, "\n".join([*complaints, errors, logs])


def imported(page):
    """Return the top modules that the Python of a page imports, but those that the page itself writes."""
    found = blocks(page)
    own = {Path(block.title).stem for block in found if block.title}
    code = [ast.parse(block.text) for block in found if block.language == "python"]
    nodes = [node for tree in code for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    tops = {name.partition(".")[0] for name in names} - own
    return sorted(top for top in tops if not top.startswith("wsgi_timeout"))


def run(script, folder, env):
    """Run a page to its end; returns what it printed, and its errors. It leaves no process behind."""
    shell = subprocess.Popen(
        ["bash", "-c", "\n".join(script.lines)],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        return shell.communicate(timeout=390)
    except subprocess.TimeoutExpired:
        started = psutil.Process(shell.pid).children(recursive=True)
        for process in (shell, *started):
            process.kill()
        raise
