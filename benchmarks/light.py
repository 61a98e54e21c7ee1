"""Rows of what is to cost nothing, or little: a route left out, an idle process, a start."""

import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager

import contestants
import load
import users_venv
from contestants import FOLDER
from harness import Process, environment, until
from rows import Row, detail, memory


def fast_route(server, quick):
    """A route that `only` leaves in the web process."""
    code = (
        "import timeit, held\n"
        "environ = {'REQUEST_METHOD': 'GET', 'PATH_INFO': '/', 'QUERY_STRING': 'a=b', 'SCRIPT_NAME': ''}\n"
        "bare = lambda environ, start_response: ()\n"
        "front = held.front_before(bare)\n"
        "def seconds(callable, count):\n"
        "    return min(timeit.repeat(lambda: callable(environ, None), number=count, repeat=5)) / count\n"
        f"count = {20_000 if quick else 100_000}\n"
        "print(1e6 * (seconds(front, count) - seconds(bare, count)))\n"
    )
    env = {**contestants.env(server), "REDIS_URL": "redis://127.0.0.1:1"}
    output = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=FOLDER, capture_output=True, text=True, check=True
    ).stdout
    microseconds = float(output)
    what = "a route that stays in the web process (its Redis is not there)"
    return [Row(what, f"{microseconds:.1f} us", "2 us at most", microseconds <= 2)]


def idle_memory(server, quick):
    """An idle web process that serves an app which is heavy to import."""
    del quick
    with (
        contestants.direct(server, app="heavy:app") as direct,
        contestants.ours(server, app="heavy:app") as ours,
    ):
        load.latency(ours.port, 20)
        sizes = {one.name: memory(one.web) / 1e6 for one in (direct, ours)}
    return [
        Row(
            "memory of an idle web process, its app holds 67 MB: ours - direct",
            f"{sizes['ours'] - sizes['direct']:.0f} MB",
            "the app is not loaded in it",
            sizes["ours"] - sizes["direct"] < -30,
            [(name, size, size, size, "MB") for name, size in sizes.items()],
        )
    ]


def start(server, quick):
    """`wsgi-timeout serve` to its first answer, installed as its users have it."""
    del server
    times = []
    with tempfile.TemporaryDirectory() as folder:
        python = users_venv.make(folder)
        for _ in range(2 if quick else 5):
            with _served(python) as (port, started):
                until(lambda port=port: _answers(port), 20, "the first answer")
                times.append(time.monotonic() - started)
    middle = statistics.median(times)
    what = "`wsgi-timeout serve` to its first answer"
    return [Row(what, f"{middle:.2f} s", "1 s at most", middle <= 1, [detail("ours", times, "s")])]


@contextmanager
def _served(python):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as state:
        env = {**environment(), "XDG_STATE_HOME": state, "PYTHONPATH": ""}
        command = [
            python,
            "-m",
            "wsgi_timeout.serving.cli",
            "serve",
            "held:app",
            "--bind",
            f"127.0.0.1:{port}",
        ]
        started = time.monotonic()
        server = Process(command, env=env, cwd=FOLDER)
        try:
            yield port, started
        finally:
            server.stop(signal.SIGINT)


def _answers(port):
    try:
        return load.latency(port, 1) > 0
    except (OSError, AssertionError):
        time.sleep(0.02)
        return False


ROWS = (fast_route, idle_memory, start)
