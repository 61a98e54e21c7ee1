"""`wsgi-timeout serve` as these tests run it, and an app that knows nothing of us."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from urllib.parse import urljoin

import psutil
import requests
from harness import Process, until, workers_below

COMMAND = [sys.executable, "-m", "wsgi_timeout.serving.cli", "serve"]


#: An app that knows nothing of us. `/wait` says who runs it, and ends when a file appears.
SHOP = """
import os, time
from pathlib import Path
from flask import Flask, request

app = Flask(__name__)

@app.get("/")
def index():
    return "hello"

@app.get("/pid")
@app.get("/web/pid")
def pid():
    return str(os.getpid())

@app.get("/folder")
def folder():
    return os.getcwd()

@app.get("/wait/<who>")
def wait(who):
    door = Path(request.args["door"])
    door.with_name(f"in-{who}").write_text(str(os.getpid()))
    while not door.exists():
        time.sleep(0.01)
    return f"{who} is through"
"""


BARE = """
def shop(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "4")])
    return [b"bare"]
"""


class Serve(Process):
    """`wsgi-timeout serve`, up when it has printed its banner."""

    def __init__(self, folder, *words, env):
        super().__init__([*COMMAND, *words], env=env, cwd=folder)
        try:
            self.url = self.wait_for(r"serving .+ on (http://\S+)/ ", 30.0)[1]
            # The rest of the banner comes in the same moment, but not in the same write.
            self.wait_for("result URL")
        except AssertionError:
            self.stop()
            raise

    @property
    def port(self):
        return int(self.url.rpartition(":")[2])

    def get(self, path="/", **options):
        return requests.get(urljoin(self.url, str(path)), timeout=30, **options)

    def ctrl_c(self):
        """Do as a terminal does: SIGINT to the foreground process group."""
        os.killpg(self.pid, signal.SIGINT)

    def workers(self):
        """Return the ids of the processes that run the app's handlers."""
        pool = [p for p in self.descendants() if p.ppid() == self.pid and "worker" in p.cmdline()]
        return {child.pid for child in workers_below(pool[0].children())}


def alive(processes):
    """Return those that still run; a zombie only waits for its parent."""
    found = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def inside(door, who):
    """Return the process id of the handler of `/wait/<who>`, once it runs."""
    file = door.with_name(f"in-{who}")
    return int(until(lambda: file.exists() and file.read_text(), 20, f"handler {who}"))


def failing(folder, *words, env):
    """Run `serve` until it has failed; return its exit code and its error output."""
    bind = () if "--bind" in words else ("--bind", "127.0.0.1:0")
    done = subprocess.run(
        [*COMMAND, *words, *bind],
        env=env,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert not done.stdout
    return done.returncode, done.stderr
