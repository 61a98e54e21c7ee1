"""The basic app, with handlers that do their worst: hang, swallow, block, leak, die."""

import ctypes
import itertools
import os
import re
import signal
import socket
import time
from contextlib import suppress

from basic import app, hold_up, note
from flask import request

from wsgi_timeout.errors import OutputExpiredError
from wsgi_timeout.functions.call import FunctionCall
from wsgi_timeout.functions.client import client

#: Calls into C that keep the GIL, and that let it go.
HOLDING, RELEASING = ctypes.PyDLL(None), ctypes.CDLL(None)
LEAKED = []


def forever():
    while True:
        time.sleep(0.01)


@app.get("/sleeps")
def sleeps():
    """Hang in Python."""
    note()
    forever()


@app.get("/catches")
def catches():
    """Hang, and catch every `Exception`."""
    note()
    while True:
        with suppress(Exception):
            forever()


@app.get("/swallows")
def swallows():
    """Hang, and swallow even what is not an `Exception`."""
    note()
    while True:
        with suppress(BaseException):
            forever()


@app.get("/blocks-signals")
def blocks_signals():
    """Hang in C with all signals blocked, without the GIL."""
    note()
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.valid_signals()))
    while True:
        RELEASING.usleep(900_000)


@app.get("/holds-gil")
def holds_gil():
    """Sleep in C for `seconds`, keeping the GIL."""
    note()
    HOLDING.usleep(int(request.args.get("seconds", 1.0, type=float) * 1e6))
    return f"held {request.args.get('tag')}\n"


@app.get("/computes")
def computes():
    """Hang in C, keeping the GIL, where no signal is looked at."""
    note()
    return str(sum(itertools.repeat(1)))


@app.get("/matches")
def matches():
    """Match a regular expression that takes exponential time, keeping the GIL, but looking at signals."""
    note()
    re.match("(a+)+$", "a" * 60 + "b")


@app.route("/aborts", methods=["GET", "POST"])
def aborts():
    note()
    os.abort()


@app.route("/exits", methods=["GET", "POST"])
def exits():
    """Leave the process behind everybody's back."""
    note()
    os._exit(0)


@app.get("/leaks")
def leaks():
    """Keep so many MiB more."""
    note()
    LEAKED.append(b"x" * (request.args.get("mib", 1, type=int) * 2**20))
    hold_up()
    return {"pid": os.getpid()}


@app.get("/runs-out")
def runs_out():
    """Want more memory than there can be."""
    note()
    return str(len(bytearray(2**62)))


@app.get("/cleans-up")
def cleans_up():
    """Hang; clean up for `seconds` when it is interrupted, noted `-finally` at its end."""
    note()
    try:
        forever()
    finally:
        time.sleep(request.args.get("seconds", 0.0, type=float))
        note("-finally")


@app.errorhandler(Exception)
def swallow(error):
    """Do as apps do that turn every error into a page."""
    if request.path not in {"/cleans-up", "/sleeps"}:
        raise error
    return f"sorry: {error}\n", 200


@app.get("/reads-socket")
def reads_socket():
    """Sleep in a socket's read until somebody listens on the `socket` and sends."""
    note()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(request.args["socket"])
        note("-connected")
        return b"".join(iter(lambda: sock.recv(100), b""))


@app.get("/forks")
def forks():
    """Leave a process behind that has all our open files, as one of `multiprocessing` has."""
    note()
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    return {"child": child}


@app.get("/asks")
def asks():
    """Ask Redis for other calls, over and over, with the client that functions use."""
    note()
    other = FunctionCall.from_id("fc-" + "A" * 22)
    while True:
        with suppress(OutputExpiredError):
            other.status()
        with suppress(OutputExpiredError):
            other.get(timeout=0)


@app.get("/echoes")
def echoes():
    """Ask Redis for what it was told, by that client."""
    sent = [os.urandom(8).hex() for _ in range(20)]
    got = [client().send("ECHO", word).decode() for word in sent]
    return {"right": got == sent, "connections": client().redis.connection_pool.pool.qsize()}
