"""What the soak runs: every answer can be told from every other's, every start and end is written down."""

import functools
import hashlib
import json
import os
import time
from pathlib import Path

from flask import Flask, Response, request

from wsgi_timeout import FunctionCall, Stub, wsgi_app

#: Of one of two targets that share a Redis.
TARGET = os.environ.get("SOAKED_TARGET", "soaked")
stub = Stub(TARGET)
app = Flask(TARGET)
CHUNK = 64 * 1024


def content(number, size, target=TARGET):
    """Return bytes that belong to one call of one target, and to no other."""
    return hashlib.shake_128(f"{target} {number}".encode()).digest(size)


def note(number, what):
    line = {"number": number, "what": what, "target": TARGET, "pid": os.getpid(), "at": time.monotonic()}
    with Path(os.environ["HANDLERS_FILE"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def noted(handler):
    """Write down when a handler starts, and when it ends by itself."""

    @functools.wraps(handler)
    def run(number, *args, **kwargs):
        note(number, "start")
        answer = handler(number, *args, **kwargs)
        note(number, "end")
        return answer

    return run


def pause():
    time.sleep(float(request.args.get("pause", 0)))


@stub.function()
@wsgi_app()
def web():
    return app


@stub.function()
@noted
def work(number, seconds):
    time.sleep(seconds)
    return content(number, 200)


@app.get("/read/<number>")
@noted
def read(number):
    pause()
    return Response(content(number, 200), mimetype="application/octet-stream")


@app.post("/write/<number>")
@noted
def write(number):
    pause()
    assert request.get_data() == content(number, len(request.get_data()))
    return Response(content(number, 200), mimetype="application/octet-stream")


@app.post("/upload/<number>")
@noted
def upload(number):
    digest = hashlib.sha256()
    while piece := request.stream.read(CHUNK):
        digest.update(piece)
    assert digest.digest() == hashlib.sha256(content(number, request.content_length)).digest()
    return Response(content(number, 200), mimetype="application/octet-stream")


@app.get("/download/<number>")
def download(number):
    size = int(request.args["size"])

    def chunks():
        note(number, "start")
        whole = content(number, size)
        for start in range(0, size, CHUNK):
            time.sleep(0.01)
            yield whole[start : start + CHUNK]
        note(number, "end")

    headers = {"Content-Length": str(size)}
    return Response(chunks(), headers=headers, mimetype="application/octet-stream")


@app.post("/spawn/<number>")
def spawn(number):
    return {"call_id": work.spawn(number, float(request.args.get("pause", 0))).object_id}


@app.get("/poll/<call_id>")
def poll(call_id):
    try:
        return Response(FunctionCall.from_id(call_id).get(timeout=0), mimetype="application/octet-stream")
    except TimeoutError:
        return {}, 202
    except Exception as error:  # noqa: BLE001 - whatever it ended in
        return {"error": repr(error)}, 500
