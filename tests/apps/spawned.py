"""Functions of a stub; those that are told a `tag` write a line to a file outside Redis."""

import asyncio
import os
import sys
import time
from pathlib import Path

from wsgi_timeout import FunctionCall, Stub, progress, wsgi_app
from wsgi_timeout.current import running

stub = Stub("spawned")


class OrderError(Exception):
    """An error of this program's own."""

    def __init__(self, number, *, reason):
        super().__init__(number)
        self.number = number
        self.reason = reason

    def __reduce__(self):
        return _order_error, (self.number, self.reason)


def _order_error(number, reason):
    return OrderError(number, reason=reason)


class StubbornError(Exception):
    """Cannot be made again from its arguments: unpickling it fails."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


class UnspeakableError(Exception):
    """Can be neither pickled nor printed."""

    def __str__(self):
        raise RuntimeError("no text")

    def __reduce__(self):
        raise RuntimeError("no pickle")


class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y


def note(tag):
    with Path(os.environ["RUNS_FILE"]).open("a", encoding="utf-8") as runs:
        runs.write(f"{tag} {os.getpid()} {time.monotonic()}\n")


def wait_for(file):
    while not Path(file).exists():
        time.sleep(0.01)


@stub.function()
@wsgi_app()
def web():
    """Return an app that spawns and polls, as its routes say."""
    from flask import Flask

    app = Flask(__name__)

    @app.post("/spawn")
    def spawn():
        return {"id": add.spawn(1, b=2).object_id}

    @app.get("/status/<call_id>")
    def status(call_id):
        return {"state": FunctionCall.from_id(call_id).status()["state"]}

    @app.get("/get/<call_id>")
    def get(call_id):
        return {"result": FunctionCall.from_id(call_id).get()}

    return app


@stub.function()
def add(a, b=0):
    """Add two numbers."""
    return a + b


@stub.function()
def pid():
    return os.getpid()


@stub.function()
def point(x):
    return Point(x, x + 1)


@stub.function()
def reduce(function, values):
    """Apply a function that came with the call."""
    return function(values)


@stub.function()
def held(file, tag="held"):
    """Wait until a file exists, telling how far it is."""
    progress(1, 2, "half of it")
    note(tag)
    try:
        wait_for(file)
    finally:
        note(f"{tag}-finally")
    return tag


@stub.function()
async def awaited(seconds):
    await asyncio.sleep(seconds)
    return running.get().id


@stub.function()
def raises(error):
    note("raises")
    raise error


@stub.function()
def raises_stubborn():
    raise StubbornError("one", "two")


@stub.function()
def raises_unspeakable():
    note("raises")
    raise UnspeakableError


@stub.function()
def raises_long(length):
    raise ValueError("x" * length)


@stub.function()
def named(self, /, **options):
    return self, options


@stub.function()
def raises_from():
    try:
        raises.local(KeyError("the cause"))
    except KeyError as error:
        raise ValueError("the effect") from error


@stub.function()
def exits(code):
    sys.exit(code)


@stub.function()
def dies():
    os.kill(os.getpid(), 9)


@stub.function(timeout=1)
def endless(file, tag):
    return held.local(file, tag)


@stub.function(timeout=1)
def waits_for(file, tag):
    return held.remote(file, tag)


@stub.function(retries=2)
def flaky(tag, failures):
    """Fail so often, then return how often it ran."""
    note(tag)
    runs = sum(line.split()[0] == tag for line in Path(os.environ["RUNS_FILE"]).read_text().splitlines())
    if runs <= failures:
        raise ValueError(f"run {runs}")
    return runs


@stub.function()
def generator():
    return (number for number in range(3))


@stub.function()
def nested(a):
    """Have another worker process add, and say who this one is."""
    return os.getpid(), add.remote(a, 1), pid.remote()


@stub.function()
def spawns():
    """Spawn, and say whom: its result is for somebody else to get."""
    return add.spawn(1, 1).object_id


@stub.function(queue="solo")
def alone():
    return alone.remote()


@stub.function(queue="reports")
def report(file):
    wait_for(file)
    return os.getpid()


@stub.function()
def blob(size):
    return b"x" * size


@stub.function(retries=1)
def mirror(tag, data):
    """Give back what came, at the second try."""
    note(tag)
    if running.get().attempt == 1:
        raise ValueError("as intended")
    return data


@stub.function()
def held_blob(file, tag, size):
    note(tag)
    wait_for(file)
    return b"x" * size


@stub.function(timeout=2)
def brief_blob(file, tag, size):
    return held_blob.local(file, tag, size)


@stub.function()
def digest(data):
    import hashlib

    return hashlib.sha256(data).hexdigest()


@stub.function()
def counted(number):
    """Leave one line for each run."""
    with Path(os.environ["RUNS_FILE"]).open("a", encoding="utf-8") as runs:
        runs.write(f"{number}\n")
    return number


@stub.function()
def touch(file):
    Path(file).touch()
