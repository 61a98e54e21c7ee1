"""Pages and files that a browser keeps, asks for again, in parts, or every now and then."""

import importlib.util
import os
import time
from pathlib import Path

from flask import Flask, Response, make_response, request

app = Flask(__name__)
#: A minute of silence: two channels of 44,100 samples a second.
SOUND = 60 * 176_400
BYTES = bytes(range(256)) * 40_000


def asked(*, hurry=False):
    """Note what this request asks for, and take longer than one wait, but in a hurry."""
    conditions = [request.headers.get(name, "-") for name in ("If-None-Match", "Range", "HX-Request")]
    with Path(os.environ["RUNS_FILE"]).open("a", encoding="utf-8") as runs:
        runs.write(" ".join([request.path[1:], *conditions]) + "\n")
    time.sleep(0 if hurry else 0.4)


def times():
    """Return how often this path was asked for."""
    return Path(os.environ["RUNS_FILE"]).read_text(encoding="utf-8").count(request.path[1:])


def kept(body, mimetype):
    response = make_response(Response(body, mimetype=mimetype))
    response.headers["Cache-Control"] = "no-cache"
    response.set_etag("v1")
    return response.make_conditional(request, accept_ranges=True, complete_length=len(body))


@app.get("/")
def index():
    return "<!doctype html><title>index</title>"


@app.get("/styled")
def styled():
    return "<!doctype html><title>styled</title><link rel=stylesheet href=/style.css><p>text"


@app.get("/style.css")
def style():
    asked(hurry=times() == 0)  # so that the browser has a copy of this very address
    return kept(b"body { color: rgb(1, 2, 3) }", "text/css")


@app.get("/film")
def film():
    return "<!doctype html><title>film</title><video id=film src=/sound.wav preload=metadata></video>"


@app.get("/sound.wav")
def sound():
    asked()
    sizes = (SOUND + 36).to_bytes(4, "little"), SOUND.to_bytes(4, "little")
    form = b"fmt \x10\0\0\0\x01\0\x02\0" + (44_100).to_bytes(4, "little") + (176_400).to_bytes(4, "little")
    head = b"RIFF" + sizes[0] + b"WAVE" + form + b"\x04\0\x10\0data" + sizes[1]
    return kept(head + bytes(SOUND), "audio/wav")


@app.get("/file.bin")
def file():
    breaks = "Range" not in request.headers
    asked()
    response = kept(BYTES, "application/octet-stream")
    response.headers["Content-Disposition"] = "attachment; filename=file.bin"
    if breaks:
        response.response = half(BYTES)
    return response


def half(body):
    yield body[: len(body) // 2]
    raise ConnectionError("as intended")


@app.get("/htmx.js")
def htmx():
    spec = importlib.util.find_spec("django_htmx")
    folder = Path(spec.submodule_search_locations[0], "static", "django_htmx")
    return Response((folder / request.args["file"]).read_bytes(), mimetype="text/javascript")


@app.get("/polled")
def polled():
    """A page whose script asks for its own address again and again."""
    asked()
    if "HX-Request" in request.headers:
        return f"<b>{times()}</b>"
    return f"""<!doctype html><title>polled</title>
    <script src="/htmx.js?file={request.args["htmx"]}"></script>
    <div id=numbers hx-get="" hx-trigger="every 200ms">none</div>"""
