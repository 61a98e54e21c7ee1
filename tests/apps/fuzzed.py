"""A stub whose calls use every kind of key: streams both ways, events, large values, retries."""

import hashlib
import time

from wsgi_timeout import Stub, wsgi_app
from wsgi_timeout.current import running

stub = Stub("fuzzed")


@stub.function()
@wsgi_app()
def web():
    """Return an app with a route for each kind of traffic."""
    from flask import Flask, Response, request

    app = Flask(__name__)

    @app.get("/fast")
    def fast():
        return "fast"

    def pieces(form, count=10):
        for number in range(count):
            yield form.format(number)
            time.sleep(0.05)

    @app.get("/events")
    def events():
        return Response(pieces("data: {}\n\n"), mimetype="text/event-stream")

    @app.get("/download")
    def download():
        return Response(pieces("{:030000}"), mimetype="application/octet-stream")

    @app.post("/upload")
    def upload():
        sha = hashlib.sha256()
        while piece := request.stream.read(20_000):
            sha.update(piece)
            time.sleep(0.02)
        return sha.hexdigest()

    @app.post("/spawn")
    def spawn():
        return {"id": fails_once.spawn(b"x" * 100_000).object_id}

    @app.post("/remote")
    def remote():
        return {"length": len(fails_once.remote(b"x" * 100_000))}

    return app


@stub.function(retries=1)
def fails_once(data):
    """Return as much as was given, in the second run."""
    time.sleep(0.1)
    if running.get().attempt == 1:
        raise ValueError("as intended")
    return data[::-1]
