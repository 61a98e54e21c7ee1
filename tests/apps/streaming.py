"""A Flask app of streams, each piece of which waits for a file of its own; see `streamed.py`."""

import gzip
import json
import os
import time
from pathlib import Path

from flask import Flask, Response, request, stream_with_context

app = Flask(__name__)


def note(line):
    with Path(os.environ["RUNS_FILE"]).open("a", encoding="utf-8") as runs:
        runs.write(f"{line} {os.getpid()} {request.method} {request.path}\n")


def paced(pieces):
    """Yield pieces, the n-th when the file `n` is in the folder; `raise` there ends it with an error."""
    folder, tag = request.args.get("folder"), request.args.get("tag", "stream")

    def body():
        try:
            for number, piece in enumerate(pieces):
                while folder and not Path(folder, str(number)).exists():
                    if Path(folder, "raise").exists():
                        raise ValueError("in the middle of a stream")
                    time.sleep(0.01)
                yield piece
        finally:
            note(f"{tag}-ended")

    return body()


@app.route("/events", methods=["GET", "POST"])
def events():
    """Stream `count` events, as the query says: with ids, in lines of CRLF, of some size, compressed."""
    note(request.args.get("tag", "events"))
    pad = "x" * request.args.get("size", 0, type=int)
    own = "id: {n}\n" if "ids" in request.args else ""
    ending = "\r\n" if "crlf" in request.args else "\n"
    body = f"{own}event: token\ndata: {{n}}\ndata: {pad}\n\n".replace("\n", ending)
    pieces = [body.replace("{n}", str(n)).encode() for n in range(request.args.get("count", 5, type=int))]
    headers = {"X-Last": request.headers.get("Last-Event-ID", "")}
    if "gzip" in request.args:
        pieces, headers["Content-Encoding"] = [gzip.compress(b"".join(pieces), mtime=0)], "gzip"
    body = stream_with_context(paced(pieces))
    return Response(body, mimetype="text/event-stream", headers=headers)


@app.get("/silent")
def silent():
    """Stream a comment, and nothing until the file 1 is there."""
    note("silent")
    return Response(
        stream_with_context(paced([b": hello\n\n", b"data: 0\n\n", b"data: 1\n\n"])),
        mimetype="text/event-stream",
    )


@app.post("/lines")
def lines():
    """Stream lines of JSON."""
    note(request.args.get("tag", "lines"))
    count, prompt = request.args.get("count", 5, type=int), request.get_data(as_text=True)
    pieces = [json.dumps({"n": n, "prompt": prompt}).encode() + b"\n" for n in range(count)]
    return Response(stream_with_context(paced(pieces)), mimetype="application/x-ndjson")


@app.get("/short")
def short():
    """Answer with two events at once, and their length."""
    note("short")
    return Response("data: 0\n\ndata: 1\n\n", mimetype="text/event-stream")
