"""Apps of the rows on waiting, bodies, memory and start."""

import hashlib
import time

from flask import Flask, Response, request

from wsgi_timeout import RequestTimeouts, wsgi_blueprint

app = Flask("held")
CHUNK = 256 * 1024


@app.get("/")
def index():
    return "ok\n"


@app.get("/sleep")
def sleep():
    time.sleep(float(request.args["seconds"]))
    return "slept\n"


@app.get("/stamped")
def stamped():
    """Say when the handler ended, on the machine's monotonic clock."""
    return Response("ok\n", headers={"X-Ended": repr(time.monotonic())})


@app.post("/hash")
def upload():
    digest = hashlib.sha256()
    while piece := request.stream.read(CHUNK):
        digest.update(piece)
    return digest.hexdigest()


@app.get("/bytes/<int:size>")
def download(size):
    chunk = bytes(min(size, CHUNK))
    return Response((chunk for _ in range(size // len(chunk))), mimetype="application/octet-stream")


@app.get("/events/<int:count>/<int:rate>")
def events(count, rate):
    """Stream small events, so many a second, or (0) as fast as they can be made."""

    def pieces():
        began = time.monotonic()
        for number in range(count):
            early = began + number / rate - time.monotonic() if rate else 0.0
            if early > 0:
                time.sleep(early)
            yield b"data: token %06d\n\n" % number

    return Response(pieces(), mimetype="text/event-stream")


@app.get("/silent/<int:seconds>")
def silent(seconds):
    """Stream one event, and nothing for so long."""

    def pieces():
        yield b"data: hello\n\n"
        time.sleep(seconds)
        yield b"data: bye\n\n"

    return Response(pieces(), mimetype="text/event-stream")


def two_queues():
    """Return a host where a request to `/quick` does not queue up behind those to `/slow`."""
    host = Flask("host")
    for prefix in ("slow", "quick"):
        host.register_blueprint(wsgi_blueprint("held:app", name=prefix), url_prefix=f"/{prefix}")
    return host


def front_before(bare):
    """Return what `RequestTimeouts` puts before a WSGI callable whose route stays in the web process."""
    extended = Flask("extended")
    extended.wsgi_app = bare
    RequestTimeouts(extended, only=["/slow/*", "POST /ocr", "/reports/*"])
    return extended.wsgi_app
