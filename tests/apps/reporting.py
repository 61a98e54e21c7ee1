"""A WSGI app that reports progress from wherever handlers are, and waits at a gate after it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from urllib.parse import parse_qs

from wsgi_timeout import progress, track

#: Outlives the calls, as an app's own does.
POOL = ThreadPoolExecutor(1)


class Unspeakable:
    def __float__(self):
        raise ValueError("as intended")


def in_thread():
    thread = threading.Thread(target=progress, args=(1, 4, "thread"))
    thread.start()
    thread.join()


def tracked():
    for row in track(["a", "b", "c"], message="rows"):
        if row == "c":
            return


REPORTS = {
    "plain": lambda: progress(1, 4, "plain"),
    "thread": in_thread,
    "nested": lambda: POOL.submit(in_thread).result(),
    "executor": lambda: POOL.submit(progress, 1, 4, "executor").result(),
    "track": tracked,
    "decimal": lambda: progress(Decimal("1.5"), Fraction(3, 1), "decimal"),
    "odd": lambda: progress(float("nan"), Unspeakable(), 7),
    "huge": lambda: progress(10**400, 10**17, "x" * 10_000),
    "often": lambda: [progress(n, 20_000, "often") for n in range(20_001)],
}


def app(environ, start_response):
    query = {key: value[0] for key, value in parse_qs(environ["QUERY_STRING"]).items()}
    how = environ["PATH_INFO"].strip("/")
    start_response("200 OK", [("Content-Type", "text/plain")])
    if how == "stream":
        return streamed(query["gate"])
    if how == "environ":
        environ["wsgi_timeout.progress"](1, 4, "environ")
    else:
        REPORTS[how]()
    wait_at(query["gate"])
    return [b"reported\n"]


def streamed(gate):
    yield b"begun\n"
    progress(1, 4, "stream")
    wait_at(gate)
    yield b"reported\n"


def wait_at(gate):
    while not Path(gate).exists():
        time.sleep(0.01)
