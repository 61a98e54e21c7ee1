"""Functions and routes that do what they should not when they are interrupted, or on their way out."""

import os
import sys
import time
from pathlib import Path

from flask import Flask, Response, request

from wsgi_timeout import Stub, wsgi_app
from wsgi_timeout.current import running

stub = Stub("resisting")
app = Flask(__name__)


def note(tag):
    with Path(os.environ["RUNS_FILE"]).open("a", encoding="utf-8") as runs:
        runs.write(f"{tag} {os.getpid()} {time.monotonic()}\n")


def wait_for(file):
    while not Path(file).exists():
        time.sleep(0.01)


@stub.function()
@wsgi_app()
def web():
    return app


@app.route("/held", methods=["GET", "POST"])
def held_page():
    """Wait for a file, then return a page of so many bytes."""
    note(request.args["tag"])
    wait_for(request.args["file"])
    return b"x" * request.args.get("size", 1, type=int)


@app.post("/goes-on")
def goes_on():
    """Give all that was announced, and go on for so long."""
    tag, seconds = request.args["tag"], request.args.get("seconds", 30.0, type=float)
    note(tag)

    def body():
        try:
            yield b"all of it\n"
            time.sleep(seconds)
            note(f"{tag}-end")
        finally:
            note(f"{tag}-finally")

    return Response(body(), headers={"Content-Length": "10"})


@app.get("/leaves")
def leaves():
    """Hang for so long in the body; the end of the response wants to end the process."""
    note(request.args["tag"])
    seconds = request.args.get("seconds", type=float)

    def body():
        time.sleep(seconds)
        yield "left\n"

    response = Response(body(), mimetype="text/plain")
    response.call_on_close(sys.exit)
    return response


@app.get("/pid")
def pid():
    return {"pid": os.getpid()}


@stub.function(timeout=1, retries=2)
def converts(tag):
    """Make an error of what interrupts the first two runs; the third one takes a part of its time."""
    note(tag)
    attempt = running.get().attempt
    try:
        time.sleep(30 if attempt < 3 else 0.6)
    except BaseException as error:
        raise RuntimeError(f"run {attempt} was interrupted") from error
    return attempt


@stub.function(timeout=60)
def hangs(tag):
    """Sleep until it is interrupted."""
    note(tag)
    try:
        time.sleep(60)
    finally:
        note(f"{tag}-finally")


@stub.function(timeout=60)
def patient(file, tag, size):
    """Do the same as `held`, with more time."""
    return held.local(file, tag, size)


@stub.function(timeout=1.5)
def held(file, tag, size):
    """Wait for a file, then return so many bytes."""
    note(tag)
    wait_for(file)
    return b"x" * size
