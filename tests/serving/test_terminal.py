"""`serve` in a terminal, as a developer runs it: a line a call, and handlers that ask."""

import os
import pty
import re
import select
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from harness import environment, until

APP = """
import time
from flask import Flask, request

app = Flask(__name__)

@app.get("/fast")
def fast():
    return "fast"

@app.route("/slow/<name>", methods=["GET", "POST"])
def slow(name):
    time.sleep(float(request.args["seconds"]))
    return "slow"

@app.get("/ask")
def ask():
    return "hello " + input("who? ")

@app.get("/debug")
def debug():
    answer = 41
    breakpoint()
    return f"answer {answer}"
"""


class Terminal:
    """`serve` with a terminal of its own: what it shows, and what is typed."""

    def __init__(self, folder, state, *options):
        self.folder = folder
        (folder / "shop.py").write_text(APP, encoding="utf-8")
        command = [sys.executable, "-m", "wsgi_timeout.serving.cli", "serve", "shop:app"]
        command += ["--processes", "1", "--wait", "0.5", "--bind", "127.0.0.1:0", *options]
        env = {**environment(), "XDG_STATE_HOME": str(state), "PYTHONPATH": ""}
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(command[0], command, env)
        self.shown = ""
        self.url = self.wait_for(r"serving \S+ on (http://\S+)/ ")[1]

    def wait_for(self, text, seconds=30.0):
        deadline = time.monotonic() + seconds
        while not (match := re.search(text, self.shown)):
            assert time.monotonic() < deadline, f"{text!r} is not in:\n{self.shown}"
            if select.select([self._master], [], [], 0.1)[0]:
                self.shown += os.read(self._master, 65536).decode(errors="replace")
        return match

    def type(self, text):
        os.write(self._master, text.encode())

    def ended(self):
        try:
            while select.select([self._master], [], [], 0)[0] and (data := os.read(self._master, 65536)):
                self.shown += data.decode(errors="replace")
        except OSError:  # the terminal has no more users
            pass
        return os.waitpid(self.pid, os.WNOHANG)[0] == self.pid


@pytest.fixture(scope="module")
def terminal(tmp_path_factory):
    terminal = Terminal(tmp_path_factory.mktemp("shop"), tmp_path_factory.mktemp("state"))
    yield terminal
    interrupt(terminal)


def interrupt(terminal):
    """Stop `serve` as a developer does."""
    terminal.type("\x03")
    try:
        until(terminal.ended, 40, "the end of serve after Ctrl-C")
    except AssertionError:
        os.kill(terminal.pid, signal.SIGKILL)
        raise


def test_a_call_is_a_line(terminal):
    """A fast request and a redirected one are a line each, with its own method, state, time and hops."""
    assert requests.get(f"{terminal.url}/fast", timeout=30).text == "fast"
    assert requests.post(f"{terminal.url}/slow/one?seconds=1.2", timeout=30).text == "slow"
    fast = terminal.wait_for(r"GET +/fast +200 +[\d.]+ s *\r\n")
    slow = terminal.wait_for(r"POST +/slow/one +200 +(\d+\.\d) s +(\d) hops?\r\n")
    assert terminal.shown.count("/slow/one") == 1
    assert float(slow[1]) >= 1.2
    assert int(slow[2]) >= 2
    assert fast.start() < slow.start()


def test_a_handler_asks(terminal):
    """`input()` in a handler asks in the terminal, and gets what is typed there."""
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(requests.get, f"{terminal.url}/ask", timeout=60)
        terminal.wait_for(r"who\? ")
        terminal.type("Ada\n")
        assert answer.result().text == "hello Ada"


def test_a_debugger_runs_in_a_handler(terminal):
    """`breakpoint()` in a handler stops it there, and goes on when told so."""
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(requests.get, f"{terminal.url}/debug", timeout=60)
        terminal.wait_for(r"\(Pdb\) ")
        terminal.type("answer += 1\n")
        terminal.wait_for(r"answer \+= 1\r\n.*\(Pdb\) ")
        terminal.type("c\n")
        assert answer.result().text == "answer 42"


@pytest.mark.slow
def test_a_handler_asks_and_is_edited(tmp_path):
    """With `--reload` too `input()` and `breakpoint()` ask in the terminal, before and after an edit."""
    (tmp_path / "shop").mkdir()
    terminal = Terminal(tmp_path / "shop", tmp_path / "state", "--reload")
    try:
        test_a_handler_asks(terminal)
        file = terminal.folder / "shop.py"
        file.write_text(APP.replace("hello", "welcome").replace('"fast"', '"edited"'), encoding="utf-8")
        until(lambda: requests.get(f"{terminal.url}/fast", timeout=60).text == "edited", 60, "the edit")
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(requests.get, f"{terminal.url}/ask", timeout=60)
            terminal.shown = ""
            terminal.wait_for(r"who\? ")
            terminal.type("Bob\n")
            assert answer.result().text == "welcome Bob"
        terminal.shown = ""
        test_a_debugger_runs_in_a_handler(terminal)
    finally:
        interrupt(terminal)
