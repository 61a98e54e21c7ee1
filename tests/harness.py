"""Real processes for tests: a Valkey, gunicorn, pools of workers, `serve`. Each stops what it started."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import gunicorn
import psutil
import pytest
import redis

from wsgi_timeout.functions.client import client
from wsgi_timeout.serving.embedded_redis import find_server
from wsgi_timeout.serving.parts import module_command

TESTS = Path(__file__).parent

#: An interpreter under which all apps of a test run are run: `make test-other-python`.
APP_PYTHON = os.environ.get("TESTS_APP_PYTHON", "")

#: The first gunicorn that has one.
_CONTROL_SOCKET = (25, 1)
APPS = TESTS / "apps"
ROOT = TESTS.parent

#: Settings under which tests run: seconds where production has minutes.
FAST = {
    "wait_seconds": 0.6,
    "worker_wait": 20.0,  # a busy machine starts a process in seconds
    "lease_seconds": 2.0,
    "interrupt_grace": 1.0,
}


def until(condition, seconds=30.0, what="the condition"):
    """Return the first true value of `condition()`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds} s")
        time.sleep(0.01)


def calls_accepted(client, name):
    """Return how many calls of a name were accepted so far."""
    return int(client.hget(f"wt:buffered:{name}", "#") or client.get(f"wt:sequence:{name}") or 0)


def is_missing(what):
    """Skip a test without what it needs; on CI, where nothing is skipped, fail."""
    end = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    end(f"not installed: {what}")


def environment(**settings):
    """Return a clean environment with settings of ours."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("WSGI_TIMEOUT_", "REDIS_"))}
    env["PYTHONPATH"] = str(APPS)
    if "buffer" in settings:  # whoever makes it small wants calls that begin before their bodies are in
        settings.setdefault("max_spooled_body", settings["buffer"])
    if "secret" in settings:
        settings["secret"] = str(settings["secret"]).ljust(32, ".")  # a short one is refused
    if APP_PYTHON:
        env["WSGI_TIMEOUT_PYTHON"] = APP_PYTHON
    env.update({f"WSGI_TIMEOUT_{key.upper()}": str(value) for key, value in settings.items()})
    return env


class Process:
    """A child in a session of its own, its output in a file."""

    def __init__(self, command, *, env=None, cwd=None, pass_fds=()):
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        self._last_output = ""
        self.popen = subprocess.Popen(
            [str(word) for word in command],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self.pid = self.popen.pid

    @property
    def output(self):
        if self._output.closed:
            return self._last_output
        return os.pread(self._output.fileno(), 1 << 24, 0).decode(errors="replace")

    def wait_for(self, text, seconds=15.0):
        """Return the match of a pattern in the output, once it is there."""

        def found():
            match = re.search(text, self.output)
            if not match and self.popen.poll() is not None:
                raise AssertionError(f"ended with {self.popen.returncode} before {text!r}:\n{self.output}")
            return match

        return until(found, seconds, f"{text!r} in the output")

    def children(self, *, recursive=False):
        """Return the processes that this one has started, and that are still there."""
        try:
            return psutil.Process(self.pid).children(recursive=recursive)
        except psutil.NoSuchProcess:
            return []

    def descendants(self):
        return self.children(recursive=True)

    def stop(self, number=signal.SIGTERM, seconds=20.0):
        """End the process and wait; its whole tree is killed if it does not go. Returns the exit code."""
        family = self.descendants()
        if self.popen.poll() is None:
            self.popen.send_signal(number)
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._last_output = self.output
        self._output.close()
        return self.popen.returncode


class RedisServer:
    """A Valkey of the tests' own: append-only, on a unix socket, with DEBUG allowed."""

    def __init__(self, folder=None, binary=None, env=None):
        """Start it in `folder`, else in one of its own; `binary`: an old Redis, which always allows DEBUG."""
        self._env = env
        self._folder = tempfile.TemporaryDirectory(prefix="wt-test-") if folder is None else None
        self.folder = Path(folder or self._folder.name)
        self.socket = self.folder / "s"
        self.url = f"unix://{self.socket}"
        self.process = None
        self._command = [binary] if binary else [find_server(), "--enable-debug-command", "yes"]
        self.start()

    def start(self, *options):
        """Start it, with more options; returns when it has loaded its data."""
        self.process = Process(
            [
                *self._command,
                *("--port", "0", "--unixsocket", self.socket, "--dir", self.folder),
                *("--appendonly", "yes", "--save", ""),
                *options,
            ],
            env=self._env,
        )
        self.client = redis.Redis.from_url(self.url)
        until(self._answers, 40, "the Redis server")

    def _answers(self):
        try:
            return self.client.ping()
        except redis.exceptions.ConnectionError:
            return False

    def stop(self, number=signal.SIGTERM):
        self.client.close()
        self.process.stop(number)

    def close(self):
        self.stop()
        if self._folder:
            self._folder.cleanup()


def misfits(server):
    """Return how many commands Redis has refused since a key was of another type."""
    return server.client.info("errorstats").get("errorstat_WRONGTYPE", {}).get("count", 0)


def preloaded(source, folder):
    """Return the library that is made of a C file, for LD_PRELOAD; the test is skipped without a compiler."""
    if not shutil.which("gcc"):
        is_missing("gcc")
    library = folder / f"{source.stem}.so"
    subprocess.run(["gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return str(library)


def listen():
    """Return a listening socket on a free port, to be inherited."""
    sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
    sock.set_inheritable(True)
    return sock


def nameless_bytes(web):
    """Return how many bytes lie in files of its processes that have no name; its log is not meant."""
    log, total = Path(f"/proc/{web.pid}/fd/1").stat().st_ino, 0
    for link in [link for each in web.workers() for link in Path(f"/proc/{each.pid}/fd").iterdir()]:
        with contextlib.suppress(FileNotFoundError):
            named = str(link.readlink())
            on_disk = named.endswith("(deleted)") and not named.startswith(("/dev/", "/memfd"))
            if on_disk and link.stat().st_ino != log:
                total += link.stat().st_size
    return total


def socket_activation(sock):
    """Return words before a command that hand it a socket as systemd does; to be passed to it besides."""
    code = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execvp(sys.argv[2], sys.argv[2:])
"""
    return [sys.executable, "-c", code, sock.fileno()]


def workers_below(children):
    """Return the worker processes of a pool with these children: on Linux each has its reaper as parent."""
    if sys.platform != "linux":
        return children
    workers = []
    for reaper in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            # What a handler has detached is a child of the reaper's too, and younger.
            workers += sorted(reaper.children(), key=psutil.Process.create_time)[:1]
    return workers


class Pool(Process):
    """`wsgi-timeout worker`, up when its first process has loaded the app."""

    def __init__(self, target, name, url, *options, env=None, cwd=None, wait=True):
        read, write = os.pipe()
        command = [
            sys.executable,
            "-m",
            "wsgi_timeout.serving.cli",
            "worker",
            target,
            *(("--name", name) if name else ()),
            "--ready-fd",
            write,
        ]
        super().__init__(
            [*command, *options],
            env={**(env or environment(**FAST)), "REDIS_URL": url},
            cwd=cwd,
            pass_fds=(write,),
        )
        os.close(write)
        self._ready = read
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self):
        ready = os.read(self._ready, 4096)
        os.close(self._ready)
        assert ready, f"the pool did not come up:\n{self.output}"

    def workers(self):
        """Return the worker processes; on Linux each has a reaper between it and the pool."""
        return workers_below(self.children())


class Gunicorn(Process):
    """gunicorn with our configuration on a free port."""

    def __init__(
        self, app, url, *options, env=None, cwd=None, config="python:wsgi_timeout.gunicorn_conf", sock=None
    ):
        self.socket = sock or listen()
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "gunicorn", "-b", f"fd://{self.socket.fileno()}"]
        command += ["-c", config] if config else []
        if gunicorn.version_info < _CONTROL_SOCKET:
            options = [option for option in options if option != "--no-control-socket"]
        super().__init__(
            [*command, *options, app],
            env={**(env or environment(**FAST)), "REDIS_URL": url},
            cwd=cwd,
            pass_fds=(self.socket.fileno(),),
        )

    def workers(self):
        return self.children()

    def stop(self, number=signal.SIGTERM, seconds=20.0):
        code = super().stop(number, seconds)
        self.socket.close()
        return code


class Serve(Process):
    """`wsgi-timeout serve` on a free port, up when it has printed its banner."""

    #: Words before the command.
    before = ()

    def __init__(self, target, *options, folder, state, env=None, **settings):
        """Serve `target` from `folder`, with data in `state` and more environment variables."""
        # The folder is not on its path, as with the installed command.
        command = [*module_command("wsgi_timeout.serving.cli"), "serve", target, "--bind", "127.0.0.1:0"]
        env = {**environment(**settings), "XDG_STATE_HOME": str(state), "PYTHONPATH": "", **(env or {})}
        super().__init__([*self.before, *command, *options], env=env, cwd=folder)
        try:
            self.url = self.wait_for(r"serving .+ on (http://\S+)/ ", 30.0)[1]
        except AssertionError:
            self.stop()
            raise
        self.port = int(self.url.rpartition(":")[2])


class Deployment:
    """gunicorn and a pool for one target, on a given Redis, under a name of its own."""

    _count = 0
    _lock = threading.Lock()

    def __init__(
        self,
        redis_server,
        target="basic:app",
        *,
        name=None,
        pool=(),
        web=(),
        gateway="",
        runs=None,
        **settings,
    ):
        """Start both; `pool` and `web` are more options, `gateway` more arguments of `gateway(...)`."""
        with self._lock:
            Deployment._count += 1
            self.name = name or f"t{os.getpid()}-{Deployment._count}"
        self.redis = redis_server
        self.target = target
        self.runs_file = Path(runs or tempfile.mkstemp(prefix="wt-runs-")[1])
        self.env = {**environment(**{**FAST, **settings}), "RUNS_FILE": str(self.runs_file)}
        self.pool = self.start_pool(*pool)
        self.web = self.start_web(*web, gateway=gateway)

    @property
    def url(self):
        return self.web.url

    def start_pool(self, *options, **kwargs):
        return Pool(self.target, self.name, self.redis.url, *options, env=self.env, cwd=APPS, **kwargs)

    def start_web(self, *options, gateway="", sock=None):
        app = f"wsgi_timeout:gateway({self.target!r}, name={self.name!r}, {gateway})"
        return Gunicorn(app, self.redis.url, *options, env=self.env, cwd=APPS, sock=sock)

    def runs(self, tag=None):
        """Return the lines that handlers wrote: `tag pid method path`."""
        lines = self.runs_file.read_text().splitlines()
        return lines if tag is None else [line for line in lines if line.split()[0] == tag]

    def noted(self):
        """Return the notes of navigations that wait here, and of which their browsers know nothing yet."""
        return list(self.redis.client.scan_iter(f"wt:first:{self.name}:*"))

    def stop(self):
        self.web.stop()
        self.pool.stop()
        self.runs_file.unlink(missing_ok=True)


@contextlib.contextmanager
def joined(url, name, env):
    """Make this process one of a deployment's: what it imports from the apps spawns and gets there."""
    with pytest.MonkeyPatch.context() as patch:
        for key in tuple(os.environ):
            if key.startswith(("WSGI_TIMEOUT_", "REDIS_")):
                patch.delenv(key)
        for key, value in env.items():
            if key.startswith("WSGI_TIMEOUT_"):
                patch.setenv(key, value)
        patch.setenv("REDIS_URL", url)
        patch.setenv("WSGI_TIMEOUT_NAME", name)
        patch.syspath_prepend(APPS)
        client().__dict__.pop("settings", None)  # those of the tests before
        yield patch
        client().__dict__.pop("settings", None)


@contextlib.contextmanager
def spawning_with(**changes):
    """Have this process spawn with other settings."""
    here = client()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(here, "settings", here.settings.replace(**changes))
        yield


def function_workers(server, name, queue="functions"):
    """Return how many processes take the calls of a queue of functions."""
    return server.client.hlen(f"wt:leases:{name}:{queue}")


def raw_request(port, data, *, timeout=10.0):
    """Send bytes on a connection of their own, and return all that comes until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as sock:
        sock.sendall(data)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
        return answer


@dataclass(frozen=True)
class Answer:
    """An HTTP response as it came: its headers in their order, with repetitions."""

    status: int
    reason: str
    headers: list
    body: bytes

    def header(self, name):
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def location(self):
        return self.header("Location")

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def app_headers(self):
        """The headers without the server's own."""
        return [(key, value) for key, value in self.headers if key not in {"Server", "Date", "Connection"}]


def ask(port, target, method="GET", *, headers=None, body=None, timeout=30.0):
    """Send one request on a connection of its own; `target` goes out byte for byte."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, target, body=body, headers={"Connection": "close", **(headers or {})})
        return answer_of(connection)
    finally:
        connection.close()


def answer_of(connection):
    """Read the response on an `http.client` connection."""
    response = connection.getresponse()
    return Answer(response.status, response.reason, response.getheaders(), response.read())


def follow(port, target, method="GET", **options):
    """Return all answers of a chain of 303s, the last one last; every hop is sent with `method`."""
    answers = [ask(port, target, method, **options)]
    while answers[-1].status == 303:
        answers.append(ask(port, answers[-1].location, method, **options))
    return answers
