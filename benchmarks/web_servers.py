"""Granian as the web half, beside gunicorn with our threads: the same front, the same pool."""

import socket
import statistics
from contextlib import ExitStack, contextmanager

import contestants
import load
from contestants import BIN, FOLDER
from harness import Pool, Process
from rows import Row, detail


def granian(server, quick):
    """Latency at one client and throughput at 32, with either server in turns."""
    rounds, count, seconds = (3, 150, 1) if quick else (7, 500, 3)
    with ExitStack() as running:
        both = {
            "gunicorn": running.enter_context(contestants.ours(server)),
            "Granian": running.enter_context(_under_granian(server)),
        }
        times, rates = ({name: [] for name in both} for _ in range(2))
        for _ in range(rounds):
            for name, one in both.items():
                times[name].append(1000 * load.latency(one.port, count))
                rates[name].append(load.throughput(one.port, 32, seconds))
    faster, more = (
        statistics.median(seen["Granian"]) / statistics.median(seen["gunicorn"]) for seen in (times, rates)
    )
    goal = "none: offered only if ahead, and if it drains"
    return [
        Row(
            "a call at 1 client, ms: Granian as the web half / gunicorn",
            f"{faster:.2f}",
            goal,
            None,
            [detail(name, values, "ms") for name, values in times.items()],
        ),
        Row(
            "requests/s at 32 clients: Granian as the web half / gunicorn",
            f"{more:.2f}",
            goal,
            None,
            [detail(name, values, "/s") for name, values in rates.items()],
        ),
    ]


@contextmanager
def _under_granian(server):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = contestants.env(server, name="granian")
    options = ("--host", "127.0.0.1", "--port", str(port), "--blocking-threads", "216", "--no-access-log")
    command = [BIN / "granian", "--interface", "wsgi", "--factory", *options, "granian_web:web"]
    with ExitStack() as running:
        web = Process(command, env=env, cwd=FOLDER)
        running.callback(web.stop)
        pool = Pool("apps:noop", None, server.url, "--processes", "1", env=env, cwd=FOLDER)
        running.callback(pool.stop)
        yield contestants._ready(contestants.Contestant("Granian", web, port, pool))  # noqa: SLF001


ROWS = (granian,)
