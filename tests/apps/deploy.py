"""A program of a web function and a slow one, deployed as `deploy:stub` for web servers and workers."""

import os
import time
from pathlib import Path

from flask import Flask, request

from wsgi_timeout import Stub, wsgi_app
from wsgi_timeout.functions import FunctionCall

stub = Stub()


@stub.function()
@wsgi_app()
def web():
    return app


def hold_up(seconds, file):
    time.sleep(seconds)
    while file and not Path(file).exists():
        time.sleep(0.01)


@stub.function()
def pages(seconds, file):
    """Take a while, and until the file exists, if one is given."""
    hold_up(seconds, file)
    return {"pages": 3, "pid": os.getpid()}


app = Flask(__name__)


@app.get("/slow")
def slow():
    hold_up(request.args.get("seconds", 0.0, type=float), request.args.get("file"))
    return {"pid": os.getpid()}


@app.post("/accept")
def accept():
    call = pages.spawn(request.args.get("seconds", 0.0, type=float), request.args.get("file"))
    return {"call_id": call.object_id}


@app.get("/result/<call_id>")
def result(call_id):
    try:
        return FunctionCall.from_id(call_id).get(timeout=0)
    except TimeoutError:
        return {}, 202
