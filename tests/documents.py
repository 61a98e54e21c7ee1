"""The code blocks of the documentation, and a page as one script of bash that does what a reader would.

Every block is run. What stands above one, unseen by readers:

    <!-- by: make TARGET -->        that target runs it, in its page's order: it needs root
    <!-- goes on: PATTERN -->       its command goes on in a terminal of its own; the next
                                    block follows when it has said PATTERN
    <!-- instead: PATTERN -->       the same, when the one before was stopped
"""

import functools
import re
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXAMPLES = sorted((ROOT / "examples").glob("*/README.md"))
#: Decisions quote what was, and run nothing.
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "deploy" / "README.md",
    *EXAMPLES,
    *sorted(path for path in DOCS.rglob("*.md") if path.name != "decisions.md"),
]
_BLOCK = re.compile(
    r"^(?:<!-- (by|goes on|instead): (.*?) -->\n+)?( *)```([^\s`]*)([^\n]*)\n(.*?)^\3```$",
    re.MULTILINE | re.DOTALL,
)
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
#: Ports that pages name.
PORTS = (8000, 8001, 8080)


class Block(NamedTuple):
    language: str
    title: str
    text: str
    #: "by", "goes on", "instead" or nothing, and what stands behind it.
    mark: str
    remark: str

    @property
    def runs(self):
        return self.mark != "by"


def blocks(page):
    """Return the code blocks of a page, in their order."""
    found = []
    for mark, remark, indent, language, options, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
        title = re.search(r'title="([^"]+)"', options)
        plain = re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)
        found.append(Block(language, title[1] if title else "", plain, mark, remark))
    return found


def inline(page):
    """Return the pieces of code in a page's sentences and tables."""
    prose = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [" ".join(code.split()) for code in re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", prose)]


@functools.cache
def named():
    """Return the words, and the options, of all files of the repository that are no documentation."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    kinds = {".py", ".lua", ".mjs", ".js", ".html", ".css", ".toml", ".yml", ".cfg", ".conf", ".json", ""}
    files = [ROOT / file for file in listed.split()]
    texts = [file.read_text(encoding="utf-8") for file in files if file.suffix in kinds and file.is_file()]
    whole = "\n".join([listed, *texts])
    return set(re.findall(r"\w+", whole)), set(OPTION.findall(whole))


def name(page):
    return page.relative_to(ROOT).as_posix()


def commands(text):
    """Return the command lines of a block of shell, with lines that go on joined."""
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def free_ports():
    """Return a free port for each that pages name."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    ports = {named: sock.getsockname()[1] for named, sock in zip(PORTS, sockets, strict=True)}
    for sock in sockets:
        sock.close()
    return ports


def _bound(text):
    """Return commands that name the port where `serve` listens, for a test to replace it."""
    return re.sub(r"\bwsgi-timeout serve (?![^\n]*--bind)", "wsgi-timeout serve --bind 127.0.0.1:8000 ", text)


def _pattern(says):
    """Return a pattern of what is printed: `...` is anything, and a line of it any lines or none."""
    lines = ["(?:.*\n)?" if line == "..." else re.escape(line) + "\n" for line in says.strip().splitlines()]
    return "".join(lines).replace(re.escape("..."), ".*")


class Script:
    """A page as bash: its files, its programs and its commands, in their order.

    `ports` and `changes` replace what a test cannot use as it stands: ports, the address of Redis.
    `by` is the target of make whose blocks it runs besides.
    """

    START = """set -m
trap 'echo "@failed: $BASH_COMMAND"' ERR
signals() { for job in $(jobs -p); do kill -$1 -- -$job 2>/dev/null || true; done; }
# Twice: what still runs then is not waited for. What was started by a script may ignore an interrupt.
stops() { signals INT; sleep 1; signals INT; sleep 1; signals TERM; wait; }
trap stops EXIT
waits() {
    for _ in $(seq 3000); do grep -q "$2" "$1" && return; kill -0 $going || break; sleep 0.1; done
    cat "$1"; return 1
}"""

    def __init__(self, page, folder, ports, changes=(), by=""):
        self._folder = folder
        self._by = by
        self._changes = {f"127.0.0.1:{named}": f"127.0.0.1:{free}" for named, free in ports.items()}
        self._changes["listen 8080"] = f"listen {ports[8080]}"
        self._changes.update(changes)
        self.lines = [self.START]
        #: What each block must print, None where the page does not say it.
        self.expected = []
        found = blocks(page)
        for block, following in zip(found, [*found[1:], None], strict=True):
            says = following.text if following and following.language == "text" else None
            self._add(block, says)
        self.lines.append("printf '\\n@@@\\n'")

    def _add(self, block, says):
        if block.title.startswith("/") or (not block.runs and block.remark != self._by):
            return
        number = len(self.expected)
        text = self._changed(block.text if block.title else _bound(block.text))
        if block.title:
            self._write(block.title, text)
        elif block.language == "python":
            self._write(f"block-{number}.py", text)
            self._run(f"python block-{number}.py", says)
        elif block.language == "sh" and block.mark and block.runs:
            log = f"goes-on-{number}.log"
            before = "kill -INT -- -$going; wait $going || true" if block.mark == "instead" else ""
            self._run(
                f"{before}\n({text.strip()}) >{log} 2>&1 &\ngoing=$!; waits {log} '{block.remark}'", says=None
            )
        elif block.language == "sh":
            self._run(text, says)

    def _changed(self, text):
        for before, after in self._changes.items():
            text = text.replace(before, after)
        return text

    def _write(self, title, text):
        self.lines.append(f"mkdir -p $(dirname {title}); cat >{title} <<'@@@'\n{text}@@@")

    def _run(self, text, says):
        self.lines += [f"printf '\\n@@@{len(self.expected)}\\n'", text]
        self.expected.append((text, says))

    def complaints(self, output):
        """Return what of the output is not as the page says: a failed command, or other lines."""
        parts = re.split(r"^@@@\d*\n", output.replace("\r", ""), flags=re.MULTILINE)[1:]
        if len(parts) != len(self.expected) + 1:
            return [f"it ended after block {len(parts) - 1} of {len(self.expected)}"]
        found = re.findall(r"^@failed: .*$", output, re.MULTILINE)
        for (text, says), printed in zip(self.expected, parts, strict=False):
            if not re.fullmatch(_pattern(says or "..."), printed.strip() + "\n", re.DOTALL):
                found.append(f"{text}\nprinted\n{printed}\nand not\n{says}")
        return found
