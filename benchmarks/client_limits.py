"""How many requests each HTTP client sends before it gives up a chain of redirects: the table of clients.

make client-limits                 each client that is on this machine, beside what the table says

A client is a command that is given the first URL of a chain that never ends; the server counts what it sends.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from chromium import start_chromium
from documents import DOCS

PYTHON = {
    "requests": "requests.get(url)",
    "httpx": "httpx.get(url, follow_redirects=True)",
    "urllib3": "urllib3.request('GET', url)",
    "urllib.request": "urllib.request.urlopen(url)",
    "aiohttp": """
async def ask():
    async with aiohttp.ClientSession() as session:
        await session.get(url)
asyncio.run(ask())""",
}
NODE = {
    "Node fetch": "await fetch(url)",
    "axios": "await (await import('axios')).default.get(url)",
    "got": "await (await import('got')).got(url)",
    "superagent": "await (await import('superagent')).default.get(url)",
}
JAVA = """import java.net.URI; import java.net.http.*;
public class Ask { public static void main(String[] words) throws Exception {
    var client = HttpClient.newBuilder().followRedirects(HttpClient.Redirect.NORMAL).build();
    client.send(HttpRequest.newBuilder(URI.create(words[0])).build(), HttpResponse.BodyHandlers.ofString());
} }"""


class Chain(BaseHTTPRequestHandler):
    """Answers /NAME/HOP with a redirect to the next hop, and counts."""

    counts: dict[str, int] = {}  # noqa: RUF012

    def do_GET(self):
        """Redirect once more."""
        _, name, hop = self.path.split("/")
        self.counts[name] = self.counts.get(name, 0) + 1
        self.send_response(303)
        self.send_header("Location", f"/{name}/{int(hop) + 1}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Say nothing of requests."""


def commands(folder):
    """Yield each client's name in the table, and its command without the URL."""
    yield "curl", ["curl", "-sL"]
    yield "wget", ["wget", "-qO-"]
    yield "httpie", [str(Path(sys.executable).with_name("http")), "--ignore-stdin", "--follow"]
    for name, code in PYTHON.items():
        imports = "import asyncio, sys, urllib.request\nurl = sys.argv[1]\n"
        imports += f"import {name.partition('.')[0]}\n"
        yield name, [sys.executable, "-c", imports + code]
    for name, code in NODE.items():
        script = folder / f"{name.split()[0]}.mjs"
        script.write_text(f"const url = process.argv[2]; {code};")
        yield name, ["node", str(script)]
    (folder / "Ask.java").write_text(JAVA)
    yield "Java HttpClient", ["java", str(folder / "Ask.java")]


def ask_all(url):
    """Have each client that is installed follow a chain of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if shutil.which("npm"):
            install = ["npm", "install", "--silent", "--prefix", name, "axios", "got", "superagent"]
            subprocess.run(install, check=False, capture_output=True)
        for client, command in commands(folder):
            if shutil.which(command[0]):
                chain = f"{url}/{client.replace(' ', '_')}/0"
                subprocess.run([*command, chain], check=False, capture_output=True, timeout=120)
        if shutil.which("chromium"):
            browser = start_chromium(folder / "chromium")
            try:
                browser.get(f"{url}/Chromium/0")
            finally:
                browser.quit()


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Chain)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ask_all(f"http://127.0.0.1:{server.server_port}")
    rows = re.findall(
        r"^\| ([^|]+?) \| (\d+) \|",
        (DOCS / "reference" / "clients.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    counts = {name.replace("_", " "): count for name, count in Chain.counts.items()}
    wrong = 0
    for row, told in rows:
        found = next((count for name, count in counts.items() if name in row), None)
        wrong += found not in {None, int(told)}
        print(f"{row:32} {'not here' if found is None else found:>8}   the table: {told}")
    sys.exit(wrong)


if __name__ == "__main__":
    main()
