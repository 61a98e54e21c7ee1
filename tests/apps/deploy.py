"""A program of a web function and a slow one, deployed as `deploy:stub` for web servers and workers."""

import os
import time

from flask import Flask, request

from wsgi_timeout import Stub, wsgi_app
from wsgi_timeout.functions import FunctionCall

stub = Stub()


@stub.function()
@wsgi_app()
def web():
    return app


@stub.function()
def pages(seconds):
    time.sleep(seconds)
    return {"pages": 3, "pid": os.getpid()}


app = Flask(__name__)


@app.get("/slow")
def slow():
    time.sleep(request.args.get("seconds", type=float))
    return {"pid": os.getpid()}


@app.post("/accept")
def accept():
    return {"call_id": pages.spawn(request.args.get("seconds", type=float)).object_id}


@app.get("/result/<call_id>")
def result(call_id):
    try:
        return FunctionCall.from_id(call_id).get(timeout=0)
    except TimeoutError:
        return {}, 202
